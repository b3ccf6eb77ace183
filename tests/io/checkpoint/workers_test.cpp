#include "io/checkpoint/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace lamina::checkpoint {
namespace {

TEST(Workers, DoEachTaskOnce) {
  for (const int workers : {1, 2, 4, 9}) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{100}}) {
      std::vector<std::atomic<int>> done(count);
      work_in_parallel(workers, count, [&](std::size_t i) { ++done[i]; });
      for (const auto& times : done) EXPECT_EQ(times, 1);
    }
  }
}

TEST(Workers, TellTheFirstFailureAfterAllHaveEnded) {
  for (const int workers : {1, 4}) {
    std::atomic<int> done{0};
    try {
      work_in_parallel(workers, 50, [&](std::size_t i) {
        if (i % 20 == 7) throw std::runtime_error(std::to_string(i));
        ++done;
      });
      FAIL() << "no failure was told";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "7");
    }
    EXPECT_EQ(done, 47);
  }
}

TEST(Workers, AreARanksShareOfTheCores) {
  EXPECT_EQ(workers_of_rank(1000), 1);
  EXPECT_GE(workers_of_rank(1), 1);
  EXPECT_LE(workers_of_rank(1), 4);
}

}  // namespace
}  // namespace lamina::checkpoint
