// Updates that touch every element once, on device memory: the same values, to the bit, as
// kernels/cpu/elementwise.h gives. Products and sums round one by one there and here.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "runtime/backend.h"

namespace lamina::cuda::elementwise {

void fill(Device& device, std::span<float> x, float value);
void copy(Device& device, std::span<const float> from, std::span<float> to);
void add(Device& device, std::span<const float> x, std::span<float> y);  ///< y += x

/// Of each array, over pieces of a fixed size, merged in the tree of runtime/tree.h. Waits for the device,
/// once.
std::vector<double> sums_of_squares(Device& device, std::span<const std::span<const float>> arrays);
/// Waits for the device.
bool all_finite(Device& device, std::span<const float> x);
std::unique_ptr<FiniteChecks> make_finite_checks(Device& device, int places);

struct SgdStep {
  float learning_rate, momentum, weight_decay, gradient_scale;
};
void sgd(Device& device, const SgdStep& step, std::span<const float> gradient, std::span<float> velocity,
         std::span<float> value);
void adam(Device& device, const AdamStep& step, std::span<const float> gradient,
          std::span<float> first_moment, std::span<float> second_moment, std::span<float> value);

}  // namespace lamina::cuda::elementwise
