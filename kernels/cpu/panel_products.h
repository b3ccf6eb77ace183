// Matrix products of recurrent layers: for the few rows of a time step, for all rows of a sequence, and the
// gradients of weights. Each element is one chain of fused multiply-adds over k, first to last, so its bits
// depend on its row of A and its column of B alone, not on what else a call computes. Matrices are row-major.
// Everything here runs on the calling thread.
//
// With bf16 operands the chain goes over pairs of k: first the product of the odd one, then of the even one,
// as the instruction VDPBF16PS adds them; products of two bf16 are exact in a float. So the bits are the same
// with that instruction and without, but for numbers below 2^-126, which it takes and gives as zero.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/cpu/large_array.h"

namespace lamina {

/// What products take: floats, or bf16, of which B is stored in pairs along k, one in the lower and one in
/// the upper half of a float's memory.
enum class Operands {
  f32,
  bf16_widened,         ///< made floats again before they are multiplied; A is floats that have been rounded
  bf16_pairs,           ///< VDPBF16PS of AVX512-BF16; A is in pairs, too
  bf16_pairs_imitated,  ///< the same without that instruction: for tests
};

/// Whether this CPU has bf16_pairs.
bool has_bf16_pairs();
/// The faster bf16 of this CPU, bf16_pairs or bf16_widened.
Operands bf16_operands();
inline bool is_bf16(Operands operands) { return operands != Operands::f32; }

/// A matrix in place, `stride` elements from row to row.
struct Rows {
  const float* values;
  std::size_t count, stride;

  Rows from(std::size_t row, std::size_t rows) const { return {values + row * stride, rows, stride}; }
};

/// Floats from row to row of a copy of A [rows, k] by round_rows().
constexpr std::size_t rounded_stride(std::size_t k) { return (k + 1) / 2 * 2; }
/// A [rows, k] as products with `operands` in bf16 take it, rounded to nearest, ties to even; `to` may be A
/// itself where the strides are equal and k is even.
void round_rows(const Rows& a, std::size_t k, Operands operands, float* to, std::size_t to_stride);

/// Right-hand sides B [k, n], `count` of them, laid out for the registers: cut into panels of a few vectors.
class PanelMatrices {
 public:
  PanelMatrices(std::size_t count, std::size_t k, std::size_t n, Operands operands = Operands::f32);

  std::size_t count() const { return count_; }
  std::size_t k() const { return k_; }
  std::size_t n() const { return n_; }
  Operands operands() const { return operands_; }

  /// Different matrices or rows from different threads. `centre`, if any, is subtracted from each given row.
  /// In bf16, pairs of rows belong to one thread, and an even one is set before the odd one behind it, which
  /// it clears.
  void set_rows(std::size_t index, std::size_t first_row, const Rows& b,
                const float* centre = nullptr);                                           ///< some of B
  void set_transposed(std::size_t index, const float* b, const float* centre = nullptr);  ///< B^T [n, k]

  /// [steps, vectors * lanes], zeros behind the last column.
  struct Panel {
    float* values;
    std::size_t vectors, first_column, columns;
  };
  std::size_t panels() const { return panels_; }
  Panel panel(std::size_t index, std::size_t panel) const;
  std::size_t steps() const { return steps_; }  ///< along k: elements or pairs

 private:
  std::size_t count_, k_, n_, steps_;
  Operands operands_;
  std::size_t lanes_, vectors_, panels_;
  mutable LargeArray values_;
};

/// c [rows, n] = a [rows, k] B, with matrix `index` of `b`. Here and below, a is floats or what round_rows()
/// made of them, as the operands of `b` are.
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
