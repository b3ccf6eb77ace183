#include "launch/commands/benchmark/table.h"

#include <gtest/gtest.h>

#include "runtime/error.h"

namespace lamina {
namespace {

TEST(Table, ColumnsAreAsWideAsTheyNeed) {
  Table table({"pass", "ms", "share"});
  table.add({"forward", "1.25", "0.9"});
  table.add({"both", "12345.67"});

  EXPECT_EQ(table.text(),
            "  pass           ms  share\n"
            "  forward      1.25    0.9\n"
            "  both     12345.67\n");
}

TEST(Table, SeveralColumnsOfWords) {
  Table table({"grid", "schedule", "tokens/s"}, 2);
  table.add({"1x2", "sharded", "7"});

  EXPECT_EQ(table.text(),
            "  grid  schedule  tokens/s\n"
            "  1x2   sharded          7\n");
}

TEST(Table, RefusesCellsWithoutAColumn) {
  Table table({"a"});

  EXPECT_THROW(table.add({"1", "2"}), InternalError);
}

}  // namespace
}  // namespace lamina
