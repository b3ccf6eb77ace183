// The sum of one array per lane group, in the order of runtime/tree.h.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

class GroupTree {
 public:
  explicit GroupTree(Device& device) : device_(device) {}

  /// compute(d, to) sets the array of group d, on the device's stream; out: their sum. Groups are merged like
  /// a binary counter, so memory for log2(groups) arrays is kept.
  void sum(int groups, std::span<float> out, const std::function<void(int d, std::span<float> to)>& compute);

 private:
  Device& device_;
  std::vector<Buffer<float>> waiting_;  ///< [level]: the sum of 2^level groups that waits for its sibling
};

}  // namespace lamina::cuda
