// Sums, and other merges, in the order of runtime/tree.h, by one thread.
#pragma once

#include <cuda_runtime.h>

namespace lamina::cuda {

template <int kCount, class Leaf, class Merge>
__device__ __forceinline__ auto tree_merge_of(const Leaf& leaf, const Merge& merge, int first) {
  if constexpr (kCount == 1) {
    return leaf(first);
  } else {
    const auto left = tree_merge_of<kCount / 2>(leaf, merge, first);  // first: leaves come in order
    return merge(left, tree_merge_of<kCount / 2>(leaf, merge, first + kCount / 2));
  }
}

inline constexpr int kMostLeaves = 64;

/// leaf(0) … leaf(count - 1), merged as merge(left, right) -> merged; `count` is a power of two, at most
/// kMostLeaves.
/// The leaves are asked for in order. Unrolled for each count, so that nothing waits in local memory.
template <class Leaf, class Merge>
__device__ __forceinline__ auto tree_merge(int count, const Leaf& leaf, const Merge& merge) {
  switch (count) {
    case 1:
      return leaf(0);
    case 2:
      return tree_merge_of<2>(leaf, merge, 0);
    case 4:
      return tree_merge_of<4>(leaf, merge, 0);
    case 8:
      return tree_merge_of<8>(leaf, merge, 0);
    case 16:
      return tree_merge_of<16>(leaf, merge, 0);
    case 32:
      return tree_merge_of<32>(leaf, merge, 0);
    default:
      return tree_merge_of<64>(leaf, merge, 0);
  }
}

/// Sum of leaf(0) … leaf(count - 1); of none, 0.
template <class Leaf>
__device__ __forceinline__ float tree_sum(int count, const Leaf& leaf) {
  if (count == 0) return 0;
  return tree_merge(count, leaf, [](float left, float right) { return left + right; });
}

}  // namespace lamina::cuda
