#include "io/checkpoint/workers.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace lamina::checkpoint {

int workers_of_rank(int ranks) {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / ranks, 1, 4);
}

void work_in_parallel(int workers, std::size_t count, const std::function<void(std::size_t)>& task) {
  std::vector<std::exception_ptr> failures(count);
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) {
      try {
        task(i);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (int i = 1; i < workers && static_cast<std::size_t>(i) < count; ++i) threads.emplace_back(work);
    } catch (const std::system_error&) {  // fewer threads, the same work
    }
    work();
  }
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace lamina::checkpoint
