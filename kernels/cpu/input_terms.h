// The part of a gate that comes from x, gain n + bias with n = (a - mean) * scale and a = W_x x (eq. 20 of
// arXiv:1607.06450), for rows that many lanes and time steps share; and its backward pass. Rows of `width`
// values; the backward functions take dz, dL/dz summed over all that share a row.
#pragma once

#include <cstddef>

#include "kernels/cpu/lstm_cell.h"

namespace lamina {

/// Some rows and their LN.
struct NormalizedInput {
  std::size_t rows, width;
  const float* a;     ///< [rows, width]
  NormalizedRows of;  ///< [rows]
  const float* gain;  ///< [width]
};

/// terms [rows, width] = gain n + bias
void input_terms(const NormalizedInput& input, const float* bias, float* terms);
/// The same without LN: terms = a + bias
void input_terms(std::size_t rows, std::size_t width, const float* a, const float* bias, float* terms);

/// Over each row, of dn = gain dz and of dn n.
void input_sums(const NormalizedInput& input, const float* dz, const NormalizationSums& sums);
/// dz becomes da = scale (dn - mean_dn - n mean_dn_n), the means being those sums over all blocks / 4H,
/// [rows]. d_gain, d_bias: [width], set.
void input_backward(const NormalizedInput& input, const float* mean_dn, const float* mean_dn_n, float* dz,
                    float* d_gain, float* d_bias);
/// The same without LN, where da = dz.
void input_backward(std::size_t rows, std::size_t width, const float* dz, float* d_bias);

}  // namespace lamina
