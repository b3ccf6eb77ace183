// One row (lane) of one tile of the LSTM cell at one time step: the equations of arXiv:1607.06450, eq. 20-22,
// and their adjoint, vectorized over the units of a block. An element's bits depend on its values and on the
// width of the block only. Gate order f, i, o, g; a [4U] row holds the U values of each gate one after
// another.
#pragma once

#include <cstddef>

namespace lamina::lstm_rows {

/// mean and m2 = sum of (x - mean)^2.
struct Moments {
  float mean = 0, m2 = 0;
};
Moments moments(const float* x, std::size_t size);

/// Sums over a row: of dn, and of dn * n.
struct Sums {
  float dn = 0, dn_n = 0;
};

/// n = (a - mean) * scale, of one example and one normalized vector.
struct Normalizer {
  float mean = 0, scale = 1;
};

/// a [size]: a -> n in place; out = gain * n + bias.
void normalize(Normalizer norm, const float* gain, const float* bias, float* a, float* out, std::size_t size);

/// Eq. 20 and 21. a_h [4U]: a -> n in place when `gain` is given (layer normalization), else left as it is.
/// z = gain * n + x_term (or a + x_term); gates [4U] = σ(z_f), σ(z_i), σ(z_o), tanh(z_g);
/// c [U] = f * c_before + i * g.
struct GatesForward {
  Normalizer norm;
  const float* gain = nullptr;
  const float* x_term = nullptr;
  const float* c_before = nullptr;
  float* a_h = nullptr;
  float* gates = nullptr;
  float* c = nullptr;
};
void gates_forward(const GatesForward& row, std::size_t units);

/// Eq. 22. squashed [U] = tanh(gain * n_c + bias), n_c = (c - mean) * scale, or tanh(c) without `gain`;
/// h [U] = o * squashed.
struct OutputForward {
  Normalizer norm;
  const float* gain = nullptr;
  const float* bias = nullptr;
  const float* c = nullptr;
  const float* o = nullptr;
  float* squashed = nullptr;
  float* h = nullptr;
};
void output_forward(const OutputForward& row, std::size_t units);

/// Adjoint of eq. 22. dy = dh * o * (1 - squashed^2); with `gain`: dn = gain * dy, its sums are returned, and
/// d_gain += dy * n_c, d_bias += dy; without: dn = dy. d_o [U] = dh * squashed.
struct OutputBackward {
  Normalizer norm;
  const float* gain = nullptr;
  const float* c = nullptr;
  const float* o = nullptr;
  const float* squashed = nullptr;
  const float* dh = nullptr;
  float* dn = nullptr;
  float* d_o = nullptr;
  float* d_gain = nullptr;
  float* d_bias = nullptr;
};
Sums output_backward(const OutputBackward& row, std::size_t units);

/// Adjoint of eq. 20 and 21. dc = d_c + scale * (dn - mean_dn - n_c * mean_dn_n), or d_c + dn without
/// `gain_h`; gates [4U] -> dz in place; d_c [U] -> the gradient into c_before. d_bias += dz. With `gain_h`:
/// d_gain_h += dz * n_h, d_gain_x += dz * n_x, and the sums of dn_h = gain_h * dz are returned.
struct GatesBackward {
  Normalizer norm_c;
  float mean_dn = 0, mean_dn_n = 0;
  const float* c = nullptr;
  const float* c_before = nullptr;
  const float* dn = nullptr;
  const float* d_o = nullptr;
  const float* gain_h = nullptr;
  const float* n_h = nullptr;
  const float* n_x = nullptr;
  float* gates = nullptr;
  float* d_c = nullptr;
  float* d_bias = nullptr;
  float* d_gain_h = nullptr;
  float* d_gain_x = nullptr;
};
Sums gates_backward(const GatesBackward& row, std::size_t units);

/// Sums of dn = gain * dz and dn * n over a row.
Sums normalized_sums(const float* gain, const float* dz, const float* n, std::size_t size);

/// Adjoint of LN: n -> da = scale * (gain * dz - mean_dn - n * mean_dn_n) in place.
void normalize_backward(float scale, float mean_dn, float mean_dn_n, const float* gain, const float* dz,
                        float* n, std::size_t size);

}  // namespace lamina::lstm_rows
