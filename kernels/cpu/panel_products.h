// Matrix products of recurrent layers: for the few rows of a time step, for all rows of a sequence, and the
// gradients of weights. Each element is one chain of fused multiply-adds over k, first to last, so its bits
// depend on its row of A and its column of B alone, not on what else a call computes. Matrices are row-major.
// Everything here runs on the calling thread.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/cpu/large_array.h"

namespace lamina {

/// A matrix in place, `stride` elements from row to row.
struct Rows {
  const float* values;
  std::size_t count, stride;

  Rows from(std::size_t row, std::size_t rows) const { return {values + row * stride, rows, stride}; }
};

/// Right-hand sides B [k, n], `count` of them, laid out for the registers: cut into panels of a few vectors.
class PanelMatrices {
 public:
  PanelMatrices(std::size_t count, std::size_t k, std::size_t n);

  std::size_t count() const { return count_; }
  std::size_t k() const { return k_; }
  std::size_t n() const { return n_; }

  /// Different matrices or rows from different threads.
  void set_rows(std::size_t index, std::size_t first_row, const Rows& b);  ///< some rows of B
  void set_transposed(std::size_t index, const float* b);                  ///< from B^T [n, k]

  /// [k, vectors * lanes], zeros behind the last column.
  struct Panel {
    float* values;
    std::size_t vectors, first_column, columns;
  };
  std::size_t panels() const { return panels_; }
  Panel panel(std::size_t index, std::size_t panel) const;

 private:
  std::size_t count_, k_, n_, lanes_, vectors_, panels_;
  mutable LargeArray values_;
};

/// c [rows, n] = a [rows, k] B, with matrix `index` of `b`.
void multiply(const Rows& a, const PanelMatrices& b, std::size_t index, float* c, std::size_t c_stride);

/// c [rows, n] = the sum over all matrices of `b` of a_i [rows, k] B_i, in the order of runtime/tree.h; a_i
/// lies at a.values + i * a_step. Only the columns of the panels [first, last).
void multiply_and_sum(const Rows& a, std::size_t a_step, const PanelMatrices& b, std::size_t first,
                      std::size_t last, float* c, std::size_t c_stride);

/// c [m, n] = (or, with `accumulate`, +=) A^T B with A [rows, m] and the first `rows` rows of matrix 0 of
/// `b`. The sum over the rows of one call is a chain of its own. `scratch` is of the calling thread.
void multiply_transposed(const Rows& a, std::size_t m, const PanelMatrices& b, bool accumulate,
                         LargeArray& scratch, float* c, std::size_t c_stride);

}  // namespace lamina
