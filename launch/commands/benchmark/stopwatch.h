// Measured in turn, on all ranks together.
#pragma once

#include <chrono>
#include <cstddef>

#include "runtime/backend.h"
#include "runtime/communicator.h"

namespace lamina {

/// Calls work(i) for all i < count, `rounds` times over. Each round begins with the next i, so that what
/// disturbs a machine for a while disturbs all, and none is always first.
template <class Work>
void interleave(int rounds, std::size_t count, const Work& work) {
  for (std::size_t round = 0; round < static_cast<std::size_t>(rounds); ++round)
    for (std::size_t i = 0; i < count; ++i) work((round + i) % count);
}

/// Seconds from when the first rank may begin until the last one has ended. Collective.
template <class Work>
double seconds_of(Communicator& world, const Work& work) {
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  work();
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  world.all_reduce(std::span(&seconds, 1), Reduction::max);
  return seconds;
}

/// Of what `work` hands to `device`: until it is done there. Collective.
template <class Work>
double seconds_of(Communicator& world, Backend& device, const Work& work) {
  device.synchronize();
  return seconds_of(world, [&] {
    work();
    device.synchronize();
  });
}

}  // namespace lamina
