// The means of the columns of W_x and W_h over all 4H gates. LN takes out what all gates have in common, so
// weights may go without them; then they lose less when they are rounded to bf16.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/recurrence/sequence.h"

namespace lamina::cuda {

class ColumnMeans {
 public:
  /// Both outlive it.
  ColumnMeans(Device& device, const Sequence& at, int inputs, Exchange& model_axis);

  /// W_x: [K, 4U, I], W_h: [K, 4U, H]. Sums of unit blocks are merged in the tree of runtime/tree.h. Ordered
  /// on the stream. Collective over the model axis.
  void measure(const float* W_x, const float* W_h);

  const float* of_x() const { return means_.view().data(); }            ///< [I]
  const float* of_h() const { return means_.view().data() + inputs_; }  ///< [H]

 private:
  int columns() const { return inputs_ + at_.hidden(); }

  Device& device_;
  Sequence at_;
  int inputs_;
  Exchange& axis_;
  Buffer<float> sums_;      ///< [K, I + H]
  Buffer<float> all_sums_;  ///< several ranks: [G, I + H]
  Buffer<float> means_;     ///< [I + H]
};

}  // namespace lamina::cuda
