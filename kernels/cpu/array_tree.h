// Sums of whole arrays in the tree of runtime/tree.h, with scratch memory for one array per level of the
// tree.
#pragma once

#include <bit>
#include <span>
#include <vector>

#include "kernels/cpu/elementwise.h"

namespace lamina {

class ArrayTree {
 public:
  explicit ArrayTree(int threads = 1) : threads_(threads) {}

  /// out = leaf(0) + … + leaf(count - 1); leaf(i, array) sets `array`, as long as `out`, and is called in
  /// order of i. count >= 1.
  template <class Leaf>
  void sum(std::size_t count, std::span<float> out, const Leaf& leaf) {
    sum(0, count, 0, out, leaf);
  }

 private:
  template <class Leaf>
  void sum(std::size_t first, std::size_t count, std::size_t level, std::span<float> out, const Leaf& leaf) {
    if (count == 1) return leaf(first, out);
    const std::size_t left = std::bit_floor(count - 1);
    sum(first, left, level + 1, out, leaf);
    const std::span<float> right = scratch(level, out.size());
    sum(first + left, count - left, level + 1, right, leaf);
    elementwise::add(threads_, right, out);
  }

  std::span<float> scratch(std::size_t level, std::size_t size) {
    if (levels_.size() <= level) levels_.resize(level + 1);
    if (levels_[level].size() < size) levels_[level].resize(size);
    return std::span(levels_[level]).first(size);
  }

  int threads_;
  std::vector<std::vector<float>> levels_;
};

}  // namespace lamina
