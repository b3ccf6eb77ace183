// How the clocks of two ranks differ.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/communicator.h"

namespace lamina {

/// When a rank entered and left a barrier, in nanoseconds of its own clock.
struct BarrierTimes {
  std::int64_t enter = 0, leave = 0;
};

/// What clock `own` is ahead of clock `other`, from the same barriers: nobody leaves a barrier before all
/// have entered it, which gives limits on both sides. 0 where that is within them, as it is for ranks that
/// share a clock; else the middle.
std::int64_t clock_offset(std::span<const BarrierTimes> own, std::span<const BarrierTimes> other);

/// What this rank's steady clock is ahead of rank 0's. Collective.
std::int64_t offset_to_root(Communicator& world);

}  // namespace lamina
