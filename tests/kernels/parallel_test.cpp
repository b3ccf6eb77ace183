#include "kernels/cpu/parallel.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "runtime/error.h"

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

std::uint64_t address_space() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// Ends with code 0 where the threads that there is room for do not keep it from saying so.
[[noreturn]] void ask_for_too_many_threads() {
  constexpr std::uint64_t kRoom = 100'000'000;  // of about ten stacks
  const rlimit limit = {address_space() + kRoom, RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &limit);
  try {
    parallel_for(1000, 1000, [](std::size_t) {});
  } catch (const UserError& error) {
    std::fputs(error.what(), stderr);
    std::_Exit(0);
  }
  std::_Exit(1);
}

TEST(ParallelForDeathTest, ThreadsThatCannotBeHadAreTheUsersError) {
  if (address_space() > std::uint64_t{1} << 40) GTEST_SKIP() << "a sanitizer has taken the address space";

  EXPECT_EXIT(ask_for_too_many_threads(), ::testing::ExitedWithCode(0),
              "only [0-9]+ of the 1000 threads .*; give fewer --threads");
}

}  // namespace
}  // namespace lamina
