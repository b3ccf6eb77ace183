// A number in shared memory that one rank publishes and others, threads or processes, wait for. Two pairs of
// cache lines: waiting ranks read the first all the time, the second only before they sleep, so that the
// owner finds it in its own cache.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lamina {

/// What the hardware may fetch at once: a cache line and its neighbour.
constexpr std::size_t kLinePair = 128;

class SharedNumber {
 public:
  /// Everything written before is seen by who loads the number.
  void publish(std::uint64_t number) noexcept {
    number_.store(number, std::memory_order_release);
    if (sleepers_.load(std::memory_order_relaxed) != 0) wake_all();
  }
  std::uint64_t load() const noexcept { return number_.load(std::memory_order_acquire); }

  /// A rank that may go to sleep. publish() has no fence between its two lines, so who says so in the very
  /// moment can be missed; some hundred nanoseconds later it cannot. Who is missed nevertheless sleeps on for
  /// a millisecond at most.
  class Sleeper {
   public:
    explicit Sleeper(SharedNumber& number) : number_(number) { number_.sleepers_.fetch_add(1); }
    ~Sleeper() { number_.sleepers_.fetch_sub(1); }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;

    /// Sleeps until a number that differs from `seen` in its lower half is published, or a millisecond.
    void sleep_while(std::uint64_t seen) noexcept;

   private:
    SharedNumber& number_;
  };

 private:
  void wake_all() noexcept;

  alignas(kLinePair) std::atomic<std::uint64_t> number_{0};
  alignas(kLinePair) std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace lamina
