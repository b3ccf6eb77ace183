// The product of two matrices, each element one chain of fused multiply-adds in the order of k.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

/// A matrix in memory: element (i, j) lies at i * row_step + j * col_step, in elements.
struct Strides {
  std::int64_t row_step = 0, col_step = 0;
  bool is_bf16 = false;
  bool drops_bits = false;  ///< what is read is rounded to TF32's ten bits after the point

  Strides transposed() const { return {col_step, row_step, is_bf16, drops_bits}; }
};

struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;  ///< D is m x n
  Strides a, b, c, d;
  float alpha = 1, beta = 0;
};

/// D = alpha * A * B + beta * C; C is not read where beta is 0.
void multiply(const Gemm& gemm, const void* a, const void* b, const void* c, void* d);

}  // namespace cuda_on_cpu
