// How a rank waits for another: briefly on its core, then lending the core to others, then asleep.
#pragma once

#include <chrono>

namespace lamina {

class Backoff {
 public:
  /// One short round of waiting on the core; false, at once, when it is time to sleep.
  bool wait_on_core();
  /// One round of waiting, asleep for a moment when it is time to.
  void pause();
  /// The peer is not about to answer: time to look at other things.
  bool is_long() const { return is_long_; }

 private:
  // A yield that returns late shows that others want this core. With a core for each rank none do, and the
  // yields go on for some hundred microseconds: less than it can cost to wake up.
  static constexpr int kSpins = 100, kYields = 1000;
  static constexpr std::chrono::microseconds kLate{20}, kNap{50};

  int rounds_ = 0;
  bool is_long_ = false;
};

}  // namespace lamina
