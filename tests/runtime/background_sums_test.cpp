#include "runtime/background_sums.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

namespace lamina {
namespace {

class DeferredSumsTest : public ::testing::Test {
 protected:
  /// Elements [first, first + count) of the array.
  using Piece = std::pair<std::ptrdiff_t, std::size_t>;

  std::span<float> part(std::size_t first, std::size_t count) {
    return std::span(array_).subspan(first, count);
  }

  std::array<float, 100> array_{};
  std::vector<Piece> summed_;
  DeferredSums sums_{[this](std::span<float> values) {
    summed_.emplace_back(values.data() - array_.data(), values.size());
  }};
};

TEST_F(DeferredSumsTest, SumsNeighboursAtOnceAndAtTheEnd) {
  sums_.add(part(60, 40));
  sums_.add(part(20, 40));
  sums_.add(part(0, 20));
  sums_.advance();
  EXPECT_TRUE(summed_.empty());

  sums_.finish();

  EXPECT_EQ(summed_, (std::vector<Piece>{{0, 100}}));
}

TEST_F(DeferredSumsTest, TakesNeighboursInEitherOrder) {
  sums_.add(part(10, 20));
  sums_.add(part(30, 5));
  sums_.add(part(35, 0));
  sums_.add(part(0, 10));

  sums_.finish();

  EXPECT_EQ(summed_, (std::vector<Piece>{{0, 35}}));
}

TEST_F(DeferredSumsTest, LosesNothingThatLiesApart) {
  sums_.add(part(0, 10));
  sums_.add(part(50, 10));
  sums_.finish();

  EXPECT_EQ(summed_, (std::vector<Piece>{{0, 10}, {50, 10}}));
}

TEST_F(DeferredSumsTest, SumsEverythingOnce) {
  sums_.add(part(0, 10));
  sums_.finish();
  sums_.finish();

  EXPECT_EQ(summed_.size(), 1u);
}

}  // namespace
}  // namespace lamina
