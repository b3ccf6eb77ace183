#include "launch/step_trace/clock_offset.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

namespace lamina {
namespace {

constexpr std::size_t kBarriers = 16;

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::int64_t clock_offset(std::span<const BarrierTimes> own, std::span<const BarrierTimes> other) {
  std::int64_t at_least = std::numeric_limits<std::int64_t>::min();
  std::int64_t at_most = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < own.size(); ++i) {
    at_least = std::max(at_least, own[i].enter - other[i].leave);
    at_most = std::min(at_most, own[i].leave - other[i].enter);
  }
  return at_least <= 0 && at_most >= 0 ? 0 : at_least + (at_most - at_least) / 2;
}

std::int64_t offset_to_root(Communicator& world) {
  std::vector<BarrierTimes> own(kBarriers);
  for (BarrierTimes& times : own) {
    times.enter = now();
    world.barrier();
    times.leave = now();
  }
  std::vector<BarrierTimes> roots = own;
  world.broadcast(std::as_writable_bytes(std::span(roots)), 0);
  return clock_offset(own, roots);
}

}  // namespace lamina
