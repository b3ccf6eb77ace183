// The one order in which partial results are merged: a fixed binary tree over equal leaves. An aligned run of
// leaves is a subtree, so a rank can merge its own leaves first and the total keeps its bits on every grid.
#pragma once

#include <bit>
#include <cstddef>
#include <vector>

namespace lamina {

/// Merges leaves that arrive one after another, like a binary counter: leaf 2k with 2k+1, then pairs of
/// pairs. `Merge` is called as merge(left, right) -> merged. Any number of leaves; a power of two gives the
/// full tree.
template <class Value, class Merge>
class TreeMerger {
 public:
  explicit TreeMerger(Merge merge) : merge_(std::move(merge)) {}

  void add(Value leaf) {
    for (std::size_t carry = count_++; carry & 1; carry >>= 1) {
      leaf = merge_(std::move(stack_.back()), std::move(leaf));
      stack_.pop_back();
    }
    stack_.push_back(std::move(leaf));
  }

  /// The merged value of all leaves so far; at least one. Leaves the merger empty.
  Value take() {
    Value total = std::move(stack_.back());
    for (stack_.pop_back(); !stack_.empty(); stack_.pop_back())
      total = merge_(std::move(stack_.back()), std::move(total));
    count_ = 0;
    return total;
  }

 private:
  Merge merge_;
  std::size_t count_ = 0;
  std::vector<Value> stack_;
};

/// Sum of leaf(first) … leaf(first + count - 1) in the fixed tree order; `count` >= 1.
template <class Leaf>
auto tree_sum(std::size_t count, const Leaf& leaf, std::size_t first = 0) -> decltype(leaf(first)) {
  if (count == 1) return leaf(first);
  const std::size_t left = std::bit_floor(count - 1);  // the largest power of two below count
  return tree_sum(left, leaf, first) + tree_sum(count - left, leaf, first + left);
}

}  // namespace lamina
