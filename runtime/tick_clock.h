// A clock for things shorter than it takes to ask the system for the time: counts of the processor, turned
// into seconds by what the system's clock says of a longer while.
#pragma once

#include <chrono>
#include <cstdint>

namespace lamina {

class TickClock {
 public:
  /// Only differences mean something.
  static std::uint64_t now() noexcept;

  /// How long `ticks` last, measured against the life of this object so far.
  double seconds(std::uint64_t ticks) const;

 private:
  using System = std::chrono::steady_clock;

  System::time_point start_ = System::now();
  std::uint64_t first_ = now();
};

}  // namespace lamina
