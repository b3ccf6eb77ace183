#include "tests/support/cuda_on_cpu/gemm.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "cuda_bf16.h"

namespace cuda_on_cpu {
namespace {

constexpr std::int64_t kColumns = 16;  // that are computed at once, side by side in vectors
constexpr std::int64_t kRows = 4;      // likewise, so that a value of B serves several times

/// The nearest number with ten bits after the point, ties away from zero, as cvt.rna.tf32 has it.
float tf32_value(float value) {
  constexpr std::uint32_t kDropped = 13, kExponent = 0x7f800000;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & kExponent) == kExponent) return value;
  return std::bit_cast<float>((bits + (1u << (kDropped - 1))) >> kDropped << kDropped);
}

float load(const void* matrix, const Strides& strides, std::int64_t i, std::int64_t j) {
  const std::int64_t at = i * strides.row_step + j * strides.col_step;
  if (strides.is_bf16) return bf16_value(static_cast<const std::uint16_t*>(matrix)[at]);
  const float value = static_cast<const float*>(matrix)[at];
  return strides.drops_bits ? tf32_value(value) : value;
}

void store(void* matrix, const Strides& strides, std::int64_t i, std::int64_t j, float value) {
  const std::int64_t at = i * strides.row_step + j * strides.col_step;
  if (strides.is_bf16) {
    static_cast<std::uint16_t*>(matrix)[at] = bf16_bits(value);
  } else {
    static_cast<float*>(matrix)[at] = value;
  }
}

using Tile = float[kRows][kColumns];

/// sums[i][j] = fma chain over k of a[k][i] * b[k][j]; both packed, padded with zeros.
__attribute__((always_inline)) inline void tile_product(const float* __restrict__ a,
                                                        const float* __restrict__ b, std::int64_t k,
                                                        Tile& sums) {
  Tile chains = {};
  for (std::int64_t step = 0; step < k; ++step, a += kRows, b += kColumns)
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t j = 0; j < kColumns; ++j) chains[i][j] = __builtin_fmaf(a[i], b[j], chains[i][j]);
  std::copy(&chains[0][0], &chains[0][0] + kRows * kColumns, &sums[0][0]);
}

void tile_product_plain(const float* a, const float* b, std::int64_t k, Tile& sums) {
  tile_product(a, b, k, sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void tile_product_avx2(const float* a, const float* b, std::int64_t k,
                                                           Tile& sums) {
  tile_product(a, b, k, sums);
}
auto* tile_product_here() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? tile_product_avx2
                                                                         : tile_product_plain;
}
#else
auto* tile_product_here() { return tile_product_plain; }
#endif

/// Panels of `width` columns: [panel][row][width]; what lies outside the matrix is 0.
std::vector<float> packed(const void* matrix, const Strides& strides, std::int64_t rows, std::int64_t cols,
                          std::int64_t width) {
  const std::int64_t panels = (cols + width - 1) / width;
  std::vector<float> values(static_cast<std::size_t>(panels * rows * width));
  float* to = values.data();
  for (std::int64_t p = 0; p < panels; ++p)
    for (std::int64_t i = 0; i < rows; ++i, to += width)
      for (std::int64_t j = p * width; j < std::min(cols, (p + 1) * width); ++j)
        to[j - p * width] = load(matrix, strides, i, j);
  return values;
}

}  // namespace

void multiply(const Gemm& gemm, const void* a, const void* b, const void* c, void* d) {
  auto* const product = tile_product_here();
  const std::vector<float> a_panels = packed(a, gemm.a.transposed(), gemm.k, gemm.m, kRows);
  const std::vector<float> b_panels = packed(b, gemm.b, gemm.k, gemm.n, kColumns);
  Tile sums;
  for (std::int64_t j = 0; j < gemm.n; j += kColumns) {
    for (std::int64_t i = 0; i < gemm.m; i += kRows) {
      product(a_panels.data() + i * gemm.k, b_panels.data() + j * gemm.k, gemm.k, sums);
      for (std::int64_t row = i; row < std::min(i + kRows, gemm.m); ++row) {
        for (std::int64_t col = j; col < std::min(j + kColumns, gemm.n); ++col) {
          float value = gemm.alpha * sums[row - i][col - j];
          if (gemm.beta != 0) value = __builtin_fmaf(gemm.beta, load(c, gemm.c, row, col), value);
          store(d, gemm.d, row, col, value);
        }
      }
    }
  }
}

}  // namespace cuda_on_cpu
