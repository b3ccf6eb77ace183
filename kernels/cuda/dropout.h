// Inverted dropout on device memory, with the masks that kernels/cpu/dropout.h draws.
#pragma once

#include <span>

#include "kernels/cuda/device.h"
#include "runtime/backend.h"

namespace lamina::cuda::dropout {

/// out = x * mask; x and out full [D, T, R, H], may be the same memory.
void forward(Device& device, const DropoutMask& mask, std::span<const float> x, std::span<float> out);
/// dx *= mask; dx blocked [D, K, T*R, H/G].
void backward(Device& device, const DropoutMask& mask, std::span<float> dx);

}  // namespace lamina::cuda::dropout
