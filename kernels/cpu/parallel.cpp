#include "kernels/cpu/parallel.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

/// Waits that cost microseconds when every thread has a core, and yield the core when it is needed elsewhere:
/// OpenMP's spin on, for milliseconds, which stops a busy machine.
class Patience {
 public:
  /// False when it is time to sleep.
  bool pause() {
    if (++waits_ > kSpins) std::this_thread::yield();
    return waits_ < kSpins + kYields;
  }

 private:
  static constexpr int kSpins = 400, kYields = 4000;
  int waits_ = 0;
};

/// The threads of one rank: its own and `threads - 1` workers that live between calls.
class Team {
 public:
  explicit Team(int threads) {
    try {
      for (int i = 1; i < threads; ++i)
        workers_.emplace_back([this, i] { serve(static_cast<std::size_t>(i)); });
    } catch (const std::exception& error) {
      end();  // else those that run would be joined in vain
      throw UserError(fmt::format("only {} of the {} threads of a rank can be had: {}; give fewer --threads",
                                  this->threads(), threads, error.what()));
    }
  }
  ~Team() { end(); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Whether the calling thread works on an item.
  static bool inside() { return inside_; }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::size_t count, const parallel::Items& items) {
    items_ = &items;
    count_ = count;
    recorder_ = TraceRecorder::current();
    next_.store(0, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    start_round();
    take_items();
    wait_for_workers();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void end() {
    items_ = nullptr;
    start_round();
  }

  void wait_for_workers() const {
    const Span span(SpanKind::other, "wait for threads");
    Patience patience;
    while (finished_.load(std::memory_order_acquire) < workers_.size()) patience.pause();
  }

  void start_round() {
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }

  void serve(std::size_t worker) {
    for (std::uint32_t seen = 0;;) {
      wait_for_round_after(seen++);
      if (items_ == nullptr) return;
      const TraceScope on(recorder_, worker);
      take_items();
      finished_.fetch_add(1, std::memory_order_release);
    }
  }

  void wait_for_round_after(std::uint32_t seen) const {
    Patience patience;
    while (round_.load(std::memory_order_acquire) == seen)
      if (!patience.pause()) round_.wait(seen, std::memory_order_acquire);
  }

  void take_items() {
    inside_ = true;
    for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
      try {
        (*items_)(i);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
    }
    inside_ = false;
  }

  static inline thread_local bool inside_ = false;
  // Of the present round; set before it starts.
  const parallel::Items* items_ = nullptr;  ///< null: the team ends
  std::size_t count_ = 0;
  TraceRecorder* recorder_ = nullptr;     ///< of the rank, where it records
  std::atomic<std::size_t> next_{0};      ///< item
  std::atomic<std::size_t> finished_{0};  ///< workers that have no item left
  std::atomic<std::uint32_t> round_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::vector<std::jthread> workers_;  // last: ends before what it works on
};

/// Belongs to the calling thread, which is a rank.
Team& team_of(int threads) {
  thread_local std::unique_ptr<Team> team;
  if (!team || team->threads() != threads) team = std::make_unique<Team>(threads);
  return *team;
}

}  // namespace

void parallel::run(int threads, std::size_t count, const Items& items) {
  if (!Team::inside()) return team_of(threads).run(count, items);
  for (std::size_t i = 0; i < count; ++i) items(i);
}

}  // namespace lamina
