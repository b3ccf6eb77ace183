#include "kernels/cpu/parallel.h"

#include <atomic>
#include <exception>
#include <mutex>

namespace lamina {
namespace {

/// Orders what one thread did before give() before what others do after take(). OpenMP's barriers do so
/// already, but ThreadSanitizer does not see them.
class Handover {
 public:
  [[gnu::noinline]] void give() { given_.fetch_add(1, std::memory_order_release); }
  [[gnu::noinline]] void take() const { (void)given_.load(std::memory_order_acquire); }

 private:
  std::atomic<int> given_{0};
};

// Not sanitized, for OpenMP hands over the arguments unseen; `item` itself is.
[[gnu::no_sanitize("thread")]] void run_team(int team, std::size_t count, const Handover& start,
                                             Handover& end, const std::function<void(std::size_t)>& item) {
#pragma omp parallel num_threads(team)
  {
    start.take();
#pragma omp for schedule(dynamic) nowait
    for (std::size_t i = 0; i < count; ++i) item(i);
    end.give();
  }
}

void run_and_keep_failure(int team, std::size_t count, const std::function<void(std::size_t)>& body) {
  std::exception_ptr failure;
  std::mutex mutex;
  const std::function<void(std::size_t)> item = [&](std::size_t i) {
    try {
      body(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  Handover start, end;
  start.give();
  run_team(team, count, start, end, item);
  end.take();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void parallel_for(int threads, std::size_t count, const std::function<void(std::size_t)>& body) {
  // One size of team whatever the count: OpenMP ends and restarts threads when the size changes.
  if (threads > 1 && count > 1) return run_and_keep_failure(threads, count, body);
  for (std::size_t i = 0; i < count; ++i) body(i);
}

}  // namespace lamina
