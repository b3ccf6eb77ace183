#include "launch/commands/benchmark/grid_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/error.h"

namespace lamina {
namespace {

TEST(GridList, IsReadInItsOrder) {
  EXPECT_THAT(grids_of("1x1,4x1,2x8"), testing::ElementsAre(Grid{1, 1}, Grid{4, 1}, Grid{2, 8}));
}

TEST(GridList, RefusesWhatIsNone) {
  for (const char* text : {"", "2", "2x", "x2", "2x2,", "2x2;1x1", "0x1", "-1x1", "2x2x2", "axb", "1x5000",
                           "128x64", "4096x4096", "2x1,2x1"}) {
    try {
      grids_of(text);
      ADD_FAILURE() << '\'' << text << "' was taken";
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("--grids"), testing::HasSubstr(text)));
    }
  }
}

TEST(GridList, AllUpToANumberOfRanks) {
  EXPECT_THAT(grids_up_to(1), testing::ElementsAre(Grid{1, 1}));
  EXPECT_THAT(grids_up_to(5),
              testing::ElementsAre(Grid{1, 1}, Grid{2, 1}, Grid{1, 2}, Grid{4, 1}, Grid{2, 2}, Grid{1, 4}));
}

}  // namespace
}  // namespace lamina
