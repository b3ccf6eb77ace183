#include "tests/reference/lstm.h"

#include <cmath>
#include <cstddef>

namespace lamina::reference {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

Vector slice(const Vector& v, std::size_t index, std::size_t width) {
  const auto begin = v.begin() + static_cast<std::ptrdiff_t>(index * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

void put(Vector& into, std::size_t index, const Vector& values) {
  for (std::size_t j = 0; j < values.size(); ++j) into[index * values.size() + j] = values[j];
}

/// W v, W: [rows, v.size()].
Vector times(const Vector& W, const Vector& v) {
  Vector out(W.size() / v.size());
  for (std::size_t r = 0; r < out.size(); ++r)
    for (std::size_t k = 0; k < v.size(); ++k) out[r] += W[r * v.size() + k] * v[k];
  return out;
}

/// W^T v, W: [v.size(), columns].
Vector transposed_times(const Vector& W, const Vector& v) {
  Vector out(W.size() / v.size());
  for (std::size_t r = 0; r < v.size(); ++r)
    for (std::size_t k = 0; k < out.size(); ++k) out[k] += W[r * out.size() + k] * v[r];
  return out;
}

/// W += a b^T.
void add_outer(Vector& W, const Vector& a, const Vector& b) {
  for (std::size_t r = 0; r < a.size(); ++r)
    for (std::size_t k = 0; k < b.size(); ++k) W[r * b.size() + k] += a[r] * b[k];
}

Vector operand(const LstmShape& shape, Vector values) {
  if (shape.rounding != nullptr)
    for (double& value : values) value = shape.rounding(value);
  return values;
}

Vector weights(const LstmShape& shape, Vector W) {
  if (shape.rounding == nullptr) return W;
  const std::size_t rows = 4 * size(shape.hidden), columns = W.size() / rows;
  for (std::size_t k = 0; k < columns && shape.normalization == Normalization::layer; ++k) {
    double mean = 0;
    for (std::size_t r = 0; r < rows; ++r) mean += W[r * columns + k] / static_cast<double>(rows);
    for (std::size_t r = 0; r < rows; ++r) W[r * columns + k] -= mean;
  }
  return operand(shape, W);
}

/// With W_x and W_h as products take them.
LstmParameters rounded(const LstmShape& shape, LstmParameters p) {
  p.W_x = weights(shape, p.W_x);
  p.W_h = weights(shape, p.W_h);
  return p;
}

Normalized normalize(const LstmShape& shape, const Vector& a) {
  if (shape.normalization == Normalization::none) return {a, 1};
  const double width = static_cast<double>(a.size());
  double mean = 0;
  for (const double value : a) mean += value / width;
  double variance = 0;
  for (const double value : a) variance += (value - mean) * (value - mean) / width;

  Normalized result{a, 1 / std::sqrt(variance + shape.epsilon)};
  for (double& value : result.n) value = (value - mean) * result.scale;
  return result;
}

/// From the gradient by n to the gradient by a.
Vector normalize_backward(const LstmShape& shape, const Normalized& normalized, const Vector& dn) {
  if (shape.normalization == Normalization::none) return dn;
  const double width = static_cast<double>(dn.size());
  double mean_dn = 0, mean_dn_n = 0;
  for (std::size_t j = 0; j < dn.size(); ++j) {
    mean_dn += dn[j] / width;
    mean_dn_n += dn[j] * normalized.n[j] / width;
  }
  Vector da(dn.size());
  for (std::size_t j = 0; j < dn.size(); ++j)
    da[j] = normalized.scale * (dn[j] - mean_dn - normalized.n[j] * mean_dn_n);
  return da;
}

double gain(const Vector& gains, std::size_t j) { return gains.empty() ? 1 : gains[j]; }
double shift(const Vector& biases, std::size_t j) { return biases.empty() ? 0 : biases[j]; }

LstmStep masked_step(const LstmShape& shape, const Vector& h, const Vector& c) {
  LstmStep s;
  s.valid = false;
  s.x.resize(size(shape.inputs));
  s.h = s.h_before = h;
  s.c = s.c_before = c;
  return s;
}

LstmStep step(const LstmShape& shape, const LstmParameters& p, const Vector& x, const Vector& h,
              const Vector& c) {
  const std::size_t H = size(shape.hidden);
  LstmStep s;
  s.x = x;
  s.h_before = h;
  s.c_before = c;
  s.norm_x = normalize(shape, times(p.W_x, operand(shape, x)));
  s.norm_h = normalize(shape, times(p.W_h, operand(shape, h)));

  const auto z = [&](std::size_t gate, std::size_t u) {  // eq. 20
    const std::size_t j = gate * H + u;
    return gain(p.gain_h, j) * s.norm_h.n[j] + gain(p.gain_x, j) * s.norm_x.n[j] + p.bias[j];
  };
  for (std::size_t u = 0; u < H; ++u) {
    s.f.push_back(sigmoid(z(0, u)));
    s.i.push_back(sigmoid(z(1, u)));
    s.o.push_back(sigmoid(z(2, u)));
    s.g.push_back(std::tanh(z(3, u)));
    s.c.push_back(s.f[u] * c[u] + s.i[u] * s.g[u]);  // eq. 21
  }
  s.norm_c = normalize(shape, s.c);
  for (std::size_t u = 0; u < H; ++u) {
    s.squashed.push_back(std::tanh(gain(p.gain_c, u) * s.norm_c.n[u] + shift(p.bias_c, u)));
    s.h.push_back(s.o[u] * s.squashed[u]);  // eq. 22
  }
  return s;
}

struct StepGradients {
  Vector x, h_before, c_before;
};

/// Adds to `d` and gives the gradients by what the step was given. dh, dc: by the step's h and c.
StepGradients step_backward(const LstmShape& shape, const LstmParameters& p, const LstmStep& s,
                            const Vector& dh, const Vector& dc_after, LstmParameters& d) {
  const bool normalized = shape.normalization == Normalization::layer;
  const std::size_t H = size(shape.hidden);

  Vector dn_c(H);
  for (std::size_t u = 0; u < H; ++u) {
    const double dy = dh[u] * s.o[u] * (1 - s.squashed[u] * s.squashed[u]);
    dn_c[u] = gain(p.gain_c, u) * dy;
    if (normalized) d.gain_c[u] += dy * s.norm_c.n[u];
    if (normalized) d.bias_c[u] += dy;
  }
  Vector dc = normalize_backward(shape, s.norm_c, dn_c);
  for (std::size_t u = 0; u < H; ++u) dc[u] += dc_after[u];

  Vector dz(4 * H), dc_before(H);
  for (std::size_t u = 0; u < H; ++u) {
    dz[u] = dc[u] * s.c_before[u] * s.f[u] * (1 - s.f[u]);
    dz[H + u] = dc[u] * s.g[u] * s.i[u] * (1 - s.i[u]);
    dz[2 * H + u] = dh[u] * s.squashed[u] * s.o[u] * (1 - s.o[u]);
    dz[3 * H + u] = dc[u] * s.i[u] * (1 - s.g[u] * s.g[u]);
    dc_before[u] = dc[u] * s.f[u];
  }

  Vector dn_x(4 * H), dn_h(4 * H);
  for (std::size_t j = 0; j < 4 * H; ++j) {
    d.bias[j] += dz[j];
    if (normalized) d.gain_x[j] += dz[j] * s.norm_x.n[j];
    if (normalized) d.gain_h[j] += dz[j] * s.norm_h.n[j];
    dn_x[j] = gain(p.gain_x, j) * dz[j];
    dn_h[j] = gain(p.gain_h, j) * dz[j];
  }
  const Vector da_x = operand(shape, normalize_backward(shape, s.norm_x, dn_x));
  const Vector da_h = operand(shape, normalize_backward(shape, s.norm_h, dn_h));
  add_outer(d.W_x, da_x, operand(shape, s.x));
  add_outer(d.W_h, da_h, operand(shape, s.h_before));
  return {transposed_times(p.W_x, da_x), transposed_times(p.W_h, da_h), dc_before};
}

}  // namespace

std::vector<std::pair<std::string, Vector*>> LstmParameters::tensors() {
  std::vector<std::pair<std::string, Vector*>> all = {
      {"W_x", &W_x},   {"W_h", &W_h},       {"gain_x", &gain_x}, {"gain_h", &gain_h},
      {"bias", &bias}, {"gain_c", &gain_c}, {"bias_c", &bias_c}};
  std::erase_if(all, [](const auto& tensor) { return tensor.second->empty(); });
  return all;
}

LstmParameters zero_parameters(const LstmShape& shape) {
  const std::size_t I = size(shape.inputs), H = size(shape.hidden);
  LstmParameters p;
  p.W_x.resize(4 * H * I);
  p.W_h.resize(4 * H * H);
  p.bias.resize(4 * H);
  if (shape.normalization == Normalization::none) return p;
  p.gain_x.resize(4 * H);
  p.gain_h.resize(4 * H);
  p.gain_c.resize(H);
  p.bias_c.resize(H);
  return p;
}

LstmOutput lstm_forward(const LstmShape& shape, const LstmParameters& parameters, const LstmInput& input) {
  const std::size_t T = size(input.time_steps), B = size(input.batch);
  const std::size_t I = size(shape.inputs), H = size(shape.hidden);
  const LstmParameters p = rounded(shape, parameters);
  LstmOutput out;
  out.h.resize(T * B * H);
  out.c.resize(T * B * H);
  out.h_last = input.h_first.empty() ? Vector(B * H) : input.h_first;
  out.c_last = input.c_first.empty() ? Vector(B * H) : input.c_first;

  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t b = 0; b < B; ++b) {
      const Vector h = slice(out.h_last, b, H), c = slice(out.c_last, b, H);
      const bool valid = input.lengths.empty() || t < size(input.lengths[b]);
      LstmStep s = valid ? step(shape, p, slice(input.x, t * B + b, I), h, c) : masked_step(shape, h, c);
      put(out.h, t * B + b, s.h);
      put(out.c, t * B + b, s.c);
      put(out.h_last, b, s.h);
      put(out.c_last, b, s.c);
      out.steps.push_back(std::move(s));
    }
  return out;
}

LstmGradients lstm_backward(const LstmShape& shape, const LstmParameters& parameters, const LstmInput& input,
                            const LstmOutput& output, const Vector& d_output) {
  const std::size_t T = size(input.time_steps), B = size(input.batch), H = size(shape.hidden);
  const LstmParameters p = rounded(shape, parameters);
  LstmGradients d{zero_parameters(shape), Vector(input.x.size()), Vector(B * H), Vector(B * H)};

  for (std::size_t t = T; t-- > 0;)
    for (std::size_t b = 0; b < B; ++b) {
      Vector dh = slice(d_output, t * B + b, H);
      const Vector dh_after = slice(d.h_first, b, H), dc_after = slice(d.c_first, b, H);
      for (std::size_t u = 0; u < H; ++u) dh[u] += dh_after[u];

      const LstmStep& s = output.steps[t * B + b];
      if (!s.valid) {
        put(d.h_first, b, dh);
        continue;
      }
      const StepGradients ds = step_backward(shape, p, s, dh, dc_after, d.parameters);
      put(d.x, t * B + b, ds.x);
      put(d.h_first, b, ds.h_before);
      put(d.c_first, b, ds.c_before);
    }
  return d;
}

}  // namespace lamina::reference
