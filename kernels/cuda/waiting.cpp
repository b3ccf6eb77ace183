#include "kernels/cuda/waiting.h"

#include <thread>

namespace lamina::cuda {
namespace {

using Clock = std::chrono::steady_clock;

/// A time step takes some ten microseconds, so short waits stay on the core.
constexpr std::chrono::microseconds kOnCore{200}, kNap{50};
constexpr std::chrono::milliseconds kBetweenChecks{5};

class Patience {
 public:
  std::chrono::nanoseconds waited() const { return Clock::now() - start_; }

  void pause() const {
    if (waited() < kOnCore)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kNap);
  }
  bool is_time_to_check() {
    const Clock::time_point now = Clock::now();
    if (now - checked_ < kBetweenChecks) return false;
    checked_ = now;
    return true;
  }

 private:
  Clock::time_point start_ = Clock::now(), checked_ = start_;
};

}  // namespace

void wait_until(const std::function<bool()>& is_done, const WaitCheck& check) {
  for (Patience patience; !is_done(); patience.pause())
    if (patience.is_time_to_check()) check(patience.waited());
}

bool wait_within(std::chrono::milliseconds limit, const std::function<bool()>& is_done) {
  for (const Patience patience; !is_done(); patience.pause())
    if (patience.waited() > limit) return false;
  return true;
}

}  // namespace lamina::cuda
