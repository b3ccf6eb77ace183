// The matrix products of a recurrent layer over this rank's unit blocks. Bits of a product depend on the
// layer and on the rows of a chunk only. Legend of shapes: runtime/backend.h.
//
// With bf16, all six products take rounded copies of W, x, h and da, and add in f32. Where the layer is
// normalized, the mean of each column of W_x and W_h is taken out before they are rounded: LN does not see
// it, nor does da, whose rows sum to 0, and the rounding would be that of the mean (eq. 20; table 1).
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cpu/blocks.h"
#include "kernels/cpu/panel_products.h"
#include "runtime/backend.h"

namespace lamina {

class RecurrenceProducts {
 public:
  /// `model_axis` must outlive it.
  RecurrenceProducts(const RecurrenceShape& shape, Communicator& model_axis);

  /// Lays out the weights [K, 4, U, I] and [K, 4, U, H] for both directions. Collective over the model axis.
  void set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads);

  /// x [rows, I], of which input() takes rows; they are there from prepare_input() of them until then.
  void set_input(std::size_t rows, const float* x);
  void prepare_input(std::size_t first_row, std::size_t rows, int threads);
  /// The h [R, H] of lane group d that recurrent() takes.
  void set_state(std::size_t d, const float* h);
  /// In place, for the products below: da [rows, 4U] has no other use afterwards.
  void set_gradient(std::size_t rows, float* da) const;

  /// a_x [rows, 4U] = x W_x^T of some rows of set_input().
  void input(std::size_t k, std::size_t first_row, std::size_t rows, float* a_x) const;
  /// a_h [R, 4U] = h W_h^T of the h of set_state(d).
  void recurrent(std::size_t d, std::size_t k, float* a_h) const;

  /// Those over all blocks come in parts, for any thread each: some columns of the result.
  std::size_t input_parts() const { return parts(W_x_); }
  std::size_t recurrent_parts() const { return parts(W_h_); }
  /// d_x [rows, I] = the sum over k of da_x [rows, 4U] W_x, that of block k at da_x + k * step
  void input_backward(std::size_t part, std::size_t rows, const float* da_x, std::size_t step,
                      float* d_x) const {
    backward(W_x_, part, rows, da_x, step, d_x);
  }
  /// d_h [R, H] = the sum over k of da_h [R, 4U] W_h, likewise
  void recurrent_backward(std::size_t part, const float* da_h, std::size_t step, float* d_h) const {
    backward(W_h_, part, rows_, da_h, step, d_h);
  }

  /// d_W_x [K, 4U, I] = da_x^T x over `rows` rows; block k's da_x [rows, 4U] at da_x + k * step. Calls
  /// `give_turn` between the products of single blocks.
  void weight_x_gradient(std::size_t rows, const float* da_x, std::size_t step, const float* x, float* d_W_x,
                         int threads, const std::function<void()>& give_turn);
  /// d_W_h [K, 4U, H] = da_h^T h, likewise, with h of t-1: h_first [R, H], then all but the last step of
  /// `output` [T, R, H].
  void weight_h_gradient(std::size_t rows, const float* da_h, std::size_t step, const float* h_first,
                         const float* output, float* d_W_h, int threads,
                         const std::function<void()>& give_turn);

 private:
  static std::size_t parts(const PanelMatrices& b);
  void find_centres(std::span<const float> W_x, std::span<const float> W_h, int threads);
  void backward(const PanelMatrices& W, std::size_t part, std::size_t rows, const float* da, std::size_t step,
                float* d) const;
  template <class Lay>
  void weight_gradient(std::size_t rows, const float* da, std::size_t step, PanelMatrices& chunk,
                       const Lay& lay, float* d_W, int threads, const std::function<void()>& give_turn);

  std::size_t blocks_, inputs_, hidden_, gates_, rows_;
  Operands operands_;
  bool centred_;
  PanelMatrices W_x_, W_x_transposed_, W_h_, W_h_transposed_;  ///< [K]
  PanelMatrices x_chunk_, h_chunk_;                            ///< some rows of x and of h of t-1
  std::vector<LargeArray> scratch_;                            ///< [K], of products at the same time
  Rows given_x_{}, x_{};                                       ///< of set_input(), and as products take it
  std::vector<Rows> h_;                                        ///< [D], of set_state()
  LargeArray rounded_x_, rounded_h_;                           ///< bf16 only
  BlockSum centre_sum_;
  std::vector<float> column_sums_, centres_;  ///< [K, I + H] and [I + H], padded to the unit blocks
};

}  // namespace lamina
