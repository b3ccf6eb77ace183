// The LSTM cell of arXiv:1607.06450, eq. 17-22, and its chain rule, for one unit of one example. The names
// are those of kernels/cpu/lstm_cell.h; the gates are f, i, o, g. No sum crosses units here.
#pragma once

#include <cuda_runtime.h>

namespace lamina::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// One LN of one row: n = (a - mean) * scale.
struct Normal {
  float mean = 0, scale = 1;

  __device__ float of(float a) const { return (a - mean) * scale; }
};

/// z = gain_h n_h + gain_x n_x + bias
__device__ __forceinline__ float gate_input(const Normal& of_h, float a_h, float gain_h, const Normal& of_x,
                                            float a_x, float gain_x, float bias) {
  return fmaf(gain_h, of_h.of(a_h), fmaf(gain_x, of_x.of(a_x), bias));
}

struct Gates {
  float f, i, o, g;

  __device__ static Gates of(float z_f, float z_i, float z_o, float z_g) {
    return {sigmoid(z_f), sigmoid(z_i), sigmoid(z_o), tanhf(z_g)};
  }
  __device__ float cell(float c_before) const { return fmaf(f, c_before, i * g); }
};

/// dz_o, and dL/d(argument of the tanh), from dL/dh.
struct OutputGradient {
  float dz_o, d_y;

  __device__ OutputGradient(float d_h, float s, float o)
      : dz_o(d_h * s * (o * (1.0f - o))), d_y(d_h * o * fmaf(-s, s, 1.0f)) {}
};

/// dL/da of an LN, from dn = gain * dz and the means of dn and dn n over the row.
__device__ __forceinline__ float normalization_gradient(const Normal& of, float n, float d_n, float mean_dn,
                                                        float mean_dn_n) {
  return of.scale * fmaf(-n, mean_dn_n, d_n - mean_dn);
}

/// dz_f, dz_i and dz_g from the complete dL/dc.
struct GateGradients {
  float f, i, g;

  __device__ GateGradients(float d_c, float c_before, const Gates& y)
      : f(d_c * c_before * (y.f * (1.0f - y.f))),
        i(d_c * y.g * (y.i * (1.0f - y.i))),
        g(d_c * y.i * fmaf(-y.g, y.g, 1.0f)) {}
};

}  // namespace lamina::cuda
