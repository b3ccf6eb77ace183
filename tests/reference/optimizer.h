// Update rules, schedules and clipping as their papers write them, on one tensor of doubles.
#pragma once

#include <cmath>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

namespace lamina::reference {

using Vector = std::vector<double>;

/// v = momentum v + (g + decay w); w = w - rate v.
struct Sgd {
  double momentum = 0, decay = 0;
  Vector v;

  void update(double rate, const Vector& g, Vector& w) {
    v.resize(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      v[i] = momentum * v[i] + g[i] + decay * w[i];
      w[i] -= rate * v[i];
    }
  }
};

/// Kingma & Ba 2015, algorithm 1; `decoupled` weight decay as in Loshchilov & Hutter 2019, algorithm 2.
struct Adam {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0;
  bool decoupled = false;
  int step = 0;
  Vector m, v;

  void update(double rate, const Vector& gradient, Vector& w) {
    ++step;
    m.resize(w.size());
    v.resize(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double g = gradient[i] + (decoupled ? 0 : decay * w[i]);
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(beta1, step)), v_hat = v[i] / (1 - std::pow(beta2, step));
      w[i] -= rate * (m_hat / (std::sqrt(v_hat) + epsilon) + (decoupled ? decay * w[i] : 0));
    }
  }
};

/// L2 norm over all tensors together.
inline double global_norm(const std::vector<std::pair<std::string, Vector*>>& tensors) {
  double squares = 0;
  for (const auto& [name, values] : tensors)
    for (const double value : *values) squares += value * value;
  return std::sqrt(squares);
}

/// Factor that makes the norm at most `bound`; 0 is no bound.
inline double clip_factor(double norm, double bound) { return bound > 0 && norm > bound ? bound / norm : 1; }

/// From `first` after the warm-up to `last` at step `total`, half a cosine.
inline double cosine_rate(double first, double last, int step, int warmup, int total) {
  if (step < warmup) return first * step / warmup;
  const double progress = static_cast<double>(step - warmup) / (total - warmup);
  return last + (first - last) * (1 + std::cos(std::numbers::pi * progress)) / 2;
}

}  // namespace lamina::reference
