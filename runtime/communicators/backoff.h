// How a rank waits for another: briefly on its core, then lending the core to others, then asleep.
#pragma once

#include <chrono>

namespace lamina {

class Backoff {
 public:
  /// Ranks with a core each hear of each other in less. With more the loss would be large where two ranks
  /// come to share a core after all: one spins in vain while the other waits for the core.
  static constexpr std::chrono::nanoseconds kSpin{1000};
  /// For ranks that share cores: the peer may be waiting for this one.
  static constexpr std::chrono::nanoseconds kShortSpin{300};

  explicit Backoff(std::chrono::nanoseconds spin = kSpin) : spin_(spin) {}

  /// One short round of waiting on the core; false, at once, when it is time to sleep.
  bool wait_on_core();
  /// One round of waiting, asleep for a moment when it is time to.
  void pause();
  /// The peer is not about to answer: time to look at other things.
  bool is_long() const { return stage_ == Stage::sleep; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Stage { spin, yield, sleep };
  void spin();
  void yield();

  // A yield that returns late shows that others want this core. With a core for each rank none do, and the
  // yields go on for some hundred microseconds: less than it can cost to wake up.
  static constexpr std::chrono::microseconds kYields{300}, kLate{20}, kNap{50};
  static constexpr int kRoundsPerLook = 16;  ///< at the clock, which can cost as much as all of them

  std::chrono::nanoseconds spin_;
  Stage stage_ = Stage::spin;
  int rounds_ = 0;
  Clock::time_point start_{};
};

}  // namespace lamina
