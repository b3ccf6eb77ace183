// Updates that touch every element once: the optimizers' rules and what surrounds them. Vectors and tails
// round alike (no fused products), so a value does not depend on its place, on the instruction set or on
// `threads`.
#pragma once

#include <span>
#include <string>

#include "runtime/backend.h"

namespace lamina::elementwise {

void fill(int threads, std::span<float> x, float value);
void copy(int threads, std::span<const float> from, std::span<float> to);
void add(int threads, std::span<const float> x, std::span<float> y);  ///< y += x

/// Pieces of a fixed size, merged in the tree of runtime/tree.h.
double sum_of_squares(int threads, std::span<const float> x);

bool all_finite(int threads, std::span<const float> x);

/// velocity = momentum * velocity + (scale * gradient + decay * value); value -= learning_rate * velocity.
struct SgdStep {
  float learning_rate, momentum, weight_decay, gradient_scale;
};
void sgd(int threads, const SgdStep& step, std::span<const float> gradient, std::span<float> velocity,
         std::span<float> value);

/// Kingma & Ba 2015, algorithm 1. With g = scale * gradient (+ decay * value unless decoupled):
/// first = beta1 first + (1 - beta1) g;  second = beta2 second + (1 - beta2) g^2;
/// value -= learning_rate * (first / correction1 / (sqrt(second / correction2) + epsilon) (+ decay * value)).
void adam(int threads, const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
          std::span<float> second_moment, std::span<float> value);

/// The SIMD instruction set in use, as Highway names it.
std::string instruction_set();

}  // namespace lamina::elementwise
