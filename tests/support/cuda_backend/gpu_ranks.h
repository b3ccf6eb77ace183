// Ranks that are threads, each with a Device of its own.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "runtime/communicator.h"

namespace lamina::cuda {

/// How many GPUs the ranks have, and thus whether they share one.
enum class Gpus { one, one_each };

/// As run_on_threads(); a Device of rank r's GPU for each. The emulated GPUs and NCCL are as at the start.
void run_on_gpus(int ranks, Gpus gpus, const std::function<void(Device& device, Communicator& world)>& body);

/// Of several magnitudes, so that another order of the sum gives other bits.
std::vector<float> values_of(int rank, std::size_t count);

inline std::vector<float> to_host(Device& device, std::span<const float> values) {
  std::vector<float> host(values.size());
  device.to_host(values.data(), host.data(), values.size_bytes());
  return host;
}
inline Buffer<float> to_device(Device& device, const std::vector<float>& values) {
  auto buffer = device.allocate<float>(values.size());
  device.to_device(values.data(), buffer.view().data(), values.size() * sizeof(float));
  return buffer;
}

}  // namespace lamina::cuda
