// Unit blocks over the model axis, in device memory: full activations from blocked ones, and blocked
// gradients from partial sums. Legend of shapes: runtime/backend.h. All of it is ordered on the stream, and
// can be captured where the exchange can.
#pragma once

#include <cstddef>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "runtime/tiling.h"

namespace lamina::cuda {

/// out[i] = leaves[0][i] + … + leaves[count - 1][i], in the order of runtime/tree.h; leaf j begins at
/// leaves + j * stride. `count` is a power of two, at most 64.
void sum_in_tree_order(Device& device, int count, const float* leaves, std::size_t stride, float* out,
                       std::size_t size);

/// Blocked values of all model ranks, side by side as complete rows.
class BlockGather {
 public:
  /// For up to `max_blocked` elements of this rank: groups * K * rows * width.
  BlockGather(Device& device, const Share& blocks, Exchange& model_axis, std::size_t max_blocked);

  /// blocked: [groups, K, rows, width], this rank's blocks. Writes full rows [rows, G * width] of group d at
  /// full + d * group_stride (in elements). Collective.
  void run(int groups, int rows, int width, const float* blocked, float* full, std::size_t group_stride);

 private:
  Device& device_;
  Share blocks_;
  Exchange& model_axis_;
  std::size_t max_blocked_;
  Buffer<float> all_;  ///< [M, groups, K, rows, width]; empty on a rank that owns all blocks
};

/// Sums over all G blocks of the layer, in the order of runtime/tree.h: each block contributes complete rows,
/// each rank keeps the columns of its own blocks.
///
///   sum.start(groups, rows, width, out);
///   for all d: sum.add(d, 1, partials);   // in any pieces, every group once
///   sum.finish();                         // collective
class BlockSum {
 public:
  /// For up to `max_blocked` elements of `out`.
  BlockSum(Device& device, const Share& blocks, Exchange& model_axis, std::size_t max_blocked);

  /// out: blocked [groups, K, rows, width], set by finish().
  void start(int groups, int rows, int width, float* out);
  /// partials: [count, K, rows, G * width], the contributions of this rank's blocks to the rows of the groups
  /// [first_group, first_group + count).
  void add(int first_group, int count, const float* partials);
  void finish();

 private:
  Device& device_;
  Share blocks_;
  Exchange& model_axis_;
  std::size_t max_blocked_;
  int groups_ = 0, rows_ = 0, width_ = 0;
  float* out_ = nullptr;
  /// [M, groups, K, rows, width]: sums over this rank's blocks, by destination, and what came from the
  /// others. Empty on a rank that owns all blocks.
  Buffer<float> packed_, received_;
};

}  // namespace lamina::cuda
