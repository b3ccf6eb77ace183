// Sums over a row by one warp: lane l takes elements l, l + 32, … in order, and the lanes merge as a
// butterfly, so all of them have the same bits. What lies in several unit blocks is merged in the tree of
// runtime/tree.h, whichever kernel does it.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/recurrence/cell.cuh"

namespace lamina::cuda {

/// Two numbers of a row of a block: mean and M2 (the sum of squared distances from it), or two sums.
struct RowPair {
  float first = 0, second = 0;
};

/// Mean and M2 of `count` values; two passes.
__device__ __forceinline__ RowPair row_moments(const float* values, int count, int lane) {
  float sum = 0;
  for (int i = lane; i < count; i += 32) sum = __fadd_rn(sum, values[i]);
  const float mean = sum_of_lanes(sum) * (1.0f / static_cast<float>(count));
  float squares = 0;
  for (int i = lane; i < count; i += 32) {
    const float distance = values[i] - mean;
    squares = fmaf(distance, distance, squares);
  }
  return {mean, sum_of_lanes(squares)};
}

/// Merges what pair(block) gives for `blocks` blocks (a power of two, at most 64), for all lanes;
/// merge(left, right, blocks in each). Lane l begins with block l, or 2l and 2l+1.
template <class Pair, class Merge>
__device__ __forceinline__ RowPair merge_blocks(int blocks, int lane, const Pair& pair, const Merge& merge) {
  int in_each = 1;
  RowPair merged;
  if (blocks > 32) {
    merged = merge(pair(2 * lane), pair(2 * lane + 1), 1);
    in_each = 2;
  } else {
    merged = pair(lane % blocks);
  }
  for (int distance = 1; in_each < blocks; distance *= 2, in_each *= 2) {
    const RowPair other = {__shfl_xor_sync(kAllLanes, merged.first, distance),
                           __shfl_xor_sync(kAllLanes, merged.second, distance)};
    merged = (lane & distance) == 0 ? merge(merged, other, in_each) : merge(other, merged, in_each);
  }
  return merged;
}

/// LN's mean and scale from the moments of blocks with `count` values each (Chan et al.).
template <class Pair>
__device__ __forceinline__ Normal merge_moments(int blocks, int count, float epsilon, int lane,
                                                const Pair& pair) {
  const RowPair all =
      merge_blocks(blocks, lane, pair, [&](RowPair left, RowPair right, int in_each) -> RowPair {
        const float distance = right.first - left.first;
        const float weight = 0.5f * static_cast<float>(count * in_each);
        return {left.first + 0.5f * distance, left.second + right.second + distance * distance * weight};
      });
  return {all.first, 1.0f / sqrtf(all.second / static_cast<float>(count * blocks) + epsilon)};
}

/// Both sums, divided by `count`.
template <class Pair>
__device__ __forceinline__ RowPair merge_means(int blocks, int count, int lane, const Pair& pair) {
  const RowPair all = merge_blocks(blocks, lane, pair, [](RowPair left, RowPair right, int) -> RowPair {
    return {left.first + right.first, left.second + right.second};
  });
  return {all.first / static_cast<float>(count), all.second / static_cast<float>(count)};
}

}  // namespace lamina::cuda
