// BackgroundSums of a GPU: kernels and copies over NCCL on a stream of their own.
#pragma once

#include "kernels/cuda/side_stream.h"
#include "kernels/cuda/tree_all_reduce.h"
#include "runtime/background_sums.h"

namespace lamina::cuda {

class SideSums final : public BackgroundSums {
 public:
  /// Arrays of at most `most` elements. `exchange` only puts work on streams, and nothing else is exchanged
  /// between ranks until finish(): of two exchanges at once, ranks might begin different ones first and wait
  /// for each other. Both outlive it.
  SideSums(Device& device, Exchange& exchange, std::size_t most);

  void add(std::span<float> values) override;
  void advance() override {}
  void finish() override { side_.join(); }

 private:
  TreeAllReduce sums_;
  SideStream side_;
};

}  // namespace lamina::cuda
