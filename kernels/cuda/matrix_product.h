// Matrix products by cuBLASLt, row-major. The algorithm is chosen once for a shape and never splits the sum
// over k, so an element's bits depend neither on how many products run at once nor on where they lie.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <memory>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

/// Of A and B; C is float, and sums are made in float. With f32 operands no bit is dropped; with tf32 they
/// are floats of which the tensor cores take ten bits after the point.
enum class Operands { f32, tf32, bf16 };

/// C [m, n] = A B, or C += A B; of A [m, k] and B [k, n], each may be stored transposed.
/// Strides in elements: from row to row of what is stored, and from one product of a batch to the next.
struct ProductShape {
  std::int64_t m = 0, n = 0, k = 0;
  bool transposed_A = false;  ///< stored [k, m]
  bool transposed_B = false;  ///< stored [n, k]
  std::int64_t row_A = 0, row_B = 0, row_C = 0;
  std::int64_t batch_A = 0, batch_B = 0, batch_C = 0;
  bool adds = false;    ///< C += A B
  bool packed = false;  ///< C begins at any float: a parameter's gradient, among others in one array
};

class MatrixProduct {
 public:
  MatrixProduct(Device& device, const ProductShape& shape, Operands operands = Operands::f32);
  ~MatrixProduct();
  MatrixProduct(MatrixProduct&&) noexcept;
  MatrixProduct& operator=(MatrixProduct&&) noexcept;

  /// `count` products, ordered on the device's stream; may be captured.
  void run(const float* A, const float* B, float* C, int count = 1) const;
  void run(const __nv_bfloat16* A, const __nv_bfloat16* B, float* C, int count = 1) const;

 private:
  struct Plan;
  void run(const void* A, const void* B, float* C, int count) const;

  std::unique_ptr<Plan> plan_;
};

}  // namespace lamina::cuda
