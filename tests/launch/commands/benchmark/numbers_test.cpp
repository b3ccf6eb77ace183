#include "launch/commands/benchmark/numbers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/error.h"

namespace lamina {
namespace {

TEST(Numbers, OfAList) {
  EXPECT_THAT(numbers_of("hidden", "512"), testing::ElementsAre(512));
  EXPECT_THAT(numbers_of("hidden", "8,16,1024"), testing::ElementsAre(8, 16, 1024));
  EXPECT_THAT(numbers_of("inputs", "0,5", 0), testing::ElementsAre(0, 5));
}

TEST(Numbers, RefuseWhatIsNone) {
  for (const char* text :
       {"", ",", "8,", ",8", "8;16", "8, 16", "eight", "0", "-8", "8.5", "99999999999", "8,16x"}) {
    try {
      numbers_of("hidden", text);
      ADD_FAILURE() << '\'' << text << "' was taken";
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("--hidden"), testing::HasSubstr(text)));
    }
  }
}

}  // namespace
}  // namespace lamina
