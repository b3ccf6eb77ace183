// The matrix products of a recurrent layer over this rank's unit blocks. Bits of a product depend on the
// layer and on the rows of a chunk only. Legend of shapes: runtime/backend.h.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cpu/panel_products.h"
#include "runtime/backend.h"

namespace lamina {

class RecurrenceProducts {
 public:
  explicit RecurrenceProducts(const RecurrenceShape& shape);

  /// Lays out the weights [K, 4, U, I] and [K, 4, U, H] for both directions.
  void set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads);

  /// a_x [rows, 4U] = x [rows, I] W_x^T
  void input(std::size_t k, std::size_t rows, const float* x, float* a_x) const;
  /// a_h [R, 4U] = h [R, H] W_h^T
  void recurrent(std::size_t k, const float* h, float* a_h) const;

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

  /// d_W_x [K, 4U, I] = da_x^T x over `rows` rows; block k's da_x [rows, 4U] at da_x + k * step.
  void weight_x_gradient(std::size_t rows, const float* da_x, std::size_t step, const float* x, float* d_W_x,
                         int threads);
  /// d_W_h [K, 4U, H] = da_h^T h, likewise, with h of t-1: h_first [R, H], then all but the last step of
  /// `output` [T, R, H].
  void weight_h_gradient(std::size_t rows, const float* da_h, std::size_t step, const float* h_first,
                         const float* output, float* d_W_h, int threads);

 private:
  static std::size_t parts(const PanelMatrices& b);
  void backward(const PanelMatrices& W, std::size_t part, std::size_t rows, const float* da, std::size_t step,
                float* d) const;
  template <class Lay>
  void weight_gradient(std::size_t rows, const float* da, std::size_t step, PanelMatrices& chunk,
                       const Lay& lay, float* d_W, int threads);

  std::size_t blocks_, inputs_, hidden_, gates_, rows_;
  PanelMatrices W_x_, W_x_transposed_, W_h_, W_h_transposed_;  ///< [K]
  PanelMatrices x_chunk_, h_chunk_;                            ///< some rows of x and of h of t-1
  std::vector<LargeArray> scratch_;                            ///< [K], the first for a single thread
};

}  // namespace lamina
