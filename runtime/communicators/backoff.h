// How a rank waits for another: briefly on its core, then lending the core to ranks that share it, then
// asleep.
#pragma once

#include <chrono>
#include <thread>

namespace lamina {

class Backoff {
 public:
  /// One round of waiting.
  void pause() {
    if (++rounds_ <= kSpins) return;
    if (rounds_ <= kSpins + kYields)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(kNap);
  }
  /// The peer is not about to answer: time to look at other things.
  bool is_long() const { return rounds_ > kSpins; }

 private:
  // With a core for each rank the spins suffice; with fewer a spin only keeps the peer from its core. Naps
  // keep many waiting ranks from passing a core around among themselves; by then a millisecond has gone.
  static constexpr int kSpins = 400, kYields = 2000;
  static constexpr std::chrono::microseconds kNap{50};

  int rounds_ = 0;
};

}  // namespace lamina
