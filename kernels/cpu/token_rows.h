// The input side of a recurrent layer whose inputs are rows of a table, chosen by tokens: what W_x x is, and
// its normalization, depends on the token alone. So it is worked out once for each row of the table when the
// parameters change, not for each lane at each time step; and gradients are first summed by token, because
// the backward pass of LN is linear in dL/dz where the statistics are the same.
// V rows of the table; else the legend of shapes of runtime/backend.h and the P blocks of
// recurrence/cpu_recurrence.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/input_terms.h"
#include "kernels/cpu/large_array.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/recurrence_products.h"
#include "kernels/cpu/row_statistics.h"
#include "runtime/backend.h"

namespace lamina {

class TokenRows {
 public:
  /// `products` and `model_axis` must outlive this object.
  TokenRows(const RecurrenceShape& shape, RecurrenceProducts& products, Communicator& model_axis,
            int threads);

  /// To be called when `products` has the new weights. Collective over the model axis.
  void set_parameters(const LstmParameters<const float>& parameters);

  /// Of block p of the pointwise work, [V, 4U]: gain_x LN(W_x x) + bias, the part of a gate before its
  /// nonlinearity that comes from x (eq. 20); W_x x + bias without LN.
  const float* terms(std::size_t p) const { return terms().data() + p * tile_size(); }

  /// Elements kept for the backward pass, and the terms.
  std::size_t saved_size() const {
    return table_.size() + a_x_.size() + mean_.size() + scale_.size() + own_terms_.size() +
           all_terms_.size() + sums_.size() + d_table_of_groups_.size();
  }

  /// Sets all sums by token to zero.
  void begin_backward();
  /// Of lane group d and this rank's block k, [V, 4U]: dL/dz by token, for the time loop to add to.
  float* sums(std::size_t d, std::size_t k) { return sums_.data() + (d * blocks_ + k) * tile_size(); }
  /// Sets the gradients of W_x, gain_x, bias and the table from the sums. Collective over the model axis.
  /// Calls `give_turn` now and then.
  void finish_backward(const LstmParameters<float>& d, const std::function<void()>& give_turn);

 private:
  const LargeArray& terms() const { return replicated_ ? all_terms_ : own_terms_; }
  std::size_t tile_size() const { return rows_ * gates_; }
  NormalizedInput normalized_input(std::size_t k, std::size_t first, std::size_t rows) const;
  void normalization_backward();
  void table_gradient(std::span<float> d_table, const std::function<void()>& give_turn);
  void sum_over_groups(const std::vector<float>& of_groups, std::span<float> out) const;

  static constexpr std::size_t kChunkRows = 64;  // of the table, at a time
  // task(block, first row, rows) over chunks of the table's rows.
  template <class Task>
  void for_chunks(const Task& task) const {
    const std::size_t chunks = (rows_ + kChunkRows - 1) / kChunkRows;
    parallel_for(threads_, blocks_ * chunks, [&](std::size_t i) {
      const std::size_t first = i % chunks * kChunkRows;
      task(i / chunks, first, std::min(kChunkRows, rows_ - first));
    });
  }

  std::size_t rows_, inputs_, groups_, blocks_, blocks_of_layer_, gates_;  ///< V, I, D, K, G, 4U
  bool normalized_, replicated_;
  float epsilon_;
  int threads_;
  RecurrenceProducts& products_;
  BlockGather gather_;
  BlockSum table_sum_;
  RowStatistics statistics_;
  ArrayTree group_tree_;

  // Of the parameters.
  LargeArray table_;                  ///< [V, I], complete
  LargeArray a_x_;                    ///< [K, V, 4U]
  std::vector<float> mean_, scale_;   ///< LN, [V]
  std::vector<float> gain_x_;         ///< LN, [K, 4U]
  LargeArray own_terms_, all_terms_;  ///< [K, V, 4U]; replicated only: [G, V, 4U]

  // Of the backward pass.
  LargeArray sums_;                       ///< [D, K, V, 4U], dL/dz; become da_x
  std::vector<float> d_gain_x_, d_bias_;  ///< [D, K, 4U]
  LargeArray d_table_of_rank_;            ///< [rows of a chunk, I]
  std::vector<float> d_table_of_groups_;  ///< [D, K, V, I/G], with several groups
};

}  // namespace lamina
