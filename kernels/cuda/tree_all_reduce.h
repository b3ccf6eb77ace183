// Sums over ranks in device memory, in the order of runtime/tree.h: the bits are those of
// Communicator::all_reduce, whatever carries the values.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"

namespace lamina::cuda {

class TreeAllReduce {
 public:
  /// Device memory that it keeps, at most, up to a thousand ranks.
  static constexpr std::size_t kScratchBytes = std::size_t{64} << 20;

  /// Both outlive it.
  TreeAllReduce(Device& device, Exchange& exchange, std::size_t scratch_bytes = kScratchBytes);

  /// sum() of as many values, or fewer, takes no more memory from now on.
  void reserve(std::size_t values);
  /// `values` (device memory) become their sums over the ranks. Ordered on the device's stream. Not within
  /// the capture of a graph. Collective.
  void sum(std::span<float> values);

 private:
  void sum_by_shares(float* values, std::size_t share);
  void sum_everywhere(float* values, std::size_t count);
  float* scratch(std::size_t size);
  void add_up(const float* received, std::size_t count, float* sums);

  Device& device_;
  Exchange& exchange_;
  std::size_t ranks_, most_;
  Buffer<float> scratch_;  ///< [ranks, count]: the same values of each rank
};

}  // namespace lamina::cuda
