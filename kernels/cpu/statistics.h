// Statistics of layer normalization over the unit blocks of a layer, per row (one example at one time step):
// merged over this rank's blocks, then over the model axis, in the order of runtime/tree.h.
#pragma once

#include <span>
#include <vector>

#include "kernels/cpu/lstm_rows.h"
#include "runtime/communicator.h"

namespace lamina {

class Statistics {
 public:
  /// `blocks`: of this rank. `model_axis`: null where this rank has all blocks.
  Statistics(int blocks, Communicator* model_axis)
      : blocks_(static_cast<std::size_t>(blocks)), axis_(model_axis) {}

  /// parts: [rows, blocks], each over `size` values. out: [rows], mean and 1 / sqrt(variance + epsilon), with
  /// the biased variance; merged by Chan, Golub & LeVeque's formula. Collective over the model axis.
  void normalizers(std::span<const lstm_rows::Moments> parts, std::size_t size, float epsilon,
                   std::span<lstm_rows::Normalizer> out);
  /// parts: [rows, blocks], sums over `size` values each. out: [rows], means over all blocks. Collective.
  void means(std::span<const lstm_rows::Sums> parts, std::size_t size, std::span<lstm_rows::Sums> out);

 private:
  template <class Pair, class Merge>
  std::span<const Pair> merge(std::span<const Pair> parts, const Merge& merge);
  std::size_t ranks() const { return axis_ == nullptr ? 1 : static_cast<std::size_t>(axis_->size()); }

  std::size_t blocks_;
  Communicator* axis_;
  std::vector<float> own_, all_, merged_;
};

}  // namespace lamina
