// A number in shared memory that one rank publishes and others, threads or processes, wait for.
#pragma once

#include <atomic>
#include <cstdint>

namespace lamina {

class SharedNumber {
 public:
  /// Everything written before is seen by who loads the number.
  void publish(std::uint32_t number) noexcept {
    // Sequentially consistent, as is sleep_while: either the sleeper sees the number or this sees the
    // sleeper.
    number_.store(number);
    if (sleepers_.load() != 0) wake_all();
  }
  std::uint32_t load() const noexcept { return number_.load(std::memory_order_acquire); }
  /// Sleeps until another number is published, about a millisecond at most.
  void sleep_while(std::uint32_t number) noexcept;

 private:
  void wake_all() noexcept;

  std::atomic<std::uint32_t> number_{0}, sleepers_{0};
};

}  // namespace lamina
