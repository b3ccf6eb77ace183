// How ranks agree that shared memory may go: MPI frees a window when all its ranks ask for it, and a rank
// that failed may never ask. Lies in that memory. Either all get true, or none.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/communicators/backoff.h"
#include "runtime/communicators/watch.h"

namespace lamina {

class Farewell {
 public:
  /// Waits until all of `ranks` have called, or the alarm is raised, if need be by the deadline. True: all
  /// called and will hear so.
  bool all_leave(int ranks, Watch& watch) noexcept {
    arrived_.fetch_add(1);
    try {
      Backoff backoff;
      LongWait wait(watch);
      while (arrived_.load() < ranks && !watch.alarm().raised()) {
        backoff.pause();
        if (backoff.is_long()) wait.look();
      }
    } catch (const std::exception&) {  // the others hear it by the alarm, or end by their own deadline
    }
    // One rank may see the last arrival while another sees the alarm: the first verdict holds for both.
    std::uint32_t verdict = kOpen;
    const std::uint32_t own = arrived_.load() == ranks ? kTogether : kAlone;
    return verdict_.compare_exchange_strong(verdict, own) ? own == kTogether : verdict == kTogether;
  }

 private:
  static constexpr std::uint32_t kOpen = 0, kTogether = 1, kAlone = 2;

  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> verdict_{kOpen};
};

static_assert(std::atomic<int>::is_always_lock_free, "processes share it");

}  // namespace lamina
