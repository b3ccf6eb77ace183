#include "kernels/cpu/parallel.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace lamina {
namespace {

TEST(ParallelFor, CallsEveryItemOnce) {
  for (const int threads : {1, 2, 4})
    for (const std::size_t count : {0, 1, 3, 1000}) {
      std::vector<int> calls(count);

      parallel_for(threads, count, [&](std::size_t i) { ++calls[i]; });

      EXPECT_EQ(calls, std::vector<int>(count, 1));
    }
}

TEST(ParallelFor, RunsInsideAnItemToo) {
  std::vector<int> calls(1000);

  parallel_for(4, 10,
               [&](std::size_t i) { parallel_for(4, 100, [&](std::size_t j) { ++calls[i * 100 + j]; }); });

  EXPECT_EQ(calls, std::vector<int>(1000, 1));
}

TEST(ParallelFor, SeesWhatEarlierCallsWrote) {
  std::vector<int> values(64, 1);

  for (int round = 0; round < 2000; ++round)
    parallel_for(3, 64, [&](std::size_t i) { ++values[(i + static_cast<std::size_t>(round)) % 64]; });

  EXPECT_EQ(values, std::vector<int>(64, 2001));
}

TEST(ParallelFor, PassesAnExceptionOn) {
  for (const int threads : {1, 3}) {
    const auto fail = [&] {
      parallel_for(threads, 10, [](std::size_t i) {
        if (i == 7) throw std::runtime_error("item 7");
      });
    };

    EXPECT_THROW(fail(), std::runtime_error);
  }
}

}  // namespace
}  // namespace lamina
