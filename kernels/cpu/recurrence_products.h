// The matrix products of a recurrent layer, one unit block of this rank at a time. Every call is of a shape
// that depends on the layer and the sequence length only. Legend of shapes: runtime/backend.h.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "runtime/backend.h"

namespace lamina {

class RecurrenceProducts {
 public:
  explicit RecurrenceProducts(const RecurrenceShape& shape);

  /// Lays out the weights [K, 4, U, I] and [K, 4, U, H] for both directions.
  void set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads);
  /// Makes the primitives for sequences of T steps; the products below may then run on any thread.
  void prepare(int time_steps);

  /// Rows of the input side are worked on in chunks of these, the last one smaller.
  std::size_t chunk_rows() const;

  /// a_x [rows, 4U] = x [rows, I] W_x^T; `rows` of a chunk.
  void input(std::size_t k, std::size_t rows, const float* x, float* a_x) const;
  /// d_x [rows, I] = da_x [rows, 4U] W_x
  void input_backward(std::size_t k, std::size_t rows, const float* da_x, float* d_x) const;
  /// a_h [R, 4U] = h [R, H] W_h^T
  void recurrent(std::size_t k, const float* h, float* a_h) const;
  /// d_h [R, H] = da_h [R, 4U] W_h
  void recurrent_backward(std::size_t k, const float* da_h, float* d_h) const;
  /// d_W_x [4U, I] = da_x^T x over [T*R] rows
  void weight_x_gradient(const float* da_x, const float* x, float* d_W_x) const;
  /// d_W_h [4U, H] = da_h^T h over [T*R] rows, h of t-1: h_first [R, H], then all but the last step of
  /// `output` [T, R, H].
  void weight_h_gradient(const float* da_h, const float* h_first, const float* output, float* d_W_h) const;

 private:
  struct OfRows {
    PackedGemm forward, backward;
  };
  struct OfSteps {
    Gemm W_x, W_h_first;
    std::vector<Gemm> W_h_rest;  ///< none for a single step
  };
  OfSteps make_weight_products(int time_steps) const;

  std::int64_t inputs_, hidden_, gates_, rows_;
  std::vector<PackedMatrix> W_x_, W_x_transposed_, W_h_, W_h_transposed_;  ///< [K]
  OfRows recurrent_;
  std::map<std::size_t, OfRows> input_;  ///< by rows of a chunk
  std::map<int, OfSteps> weights_;       ///< by time steps
  const OfSteps* current_ = nullptr;
  std::size_t sequence_rows_ = 0;
};

}  // namespace lamina
