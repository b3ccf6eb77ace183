// Inverted dropout (Srivastava et al. 2014), per element or with one mask per lane for all time steps
// (Gal & Ghahramani 2016). Masks are drawn per global element, so every grid draws the same.
#pragma once

#include <span>

#include "runtime/backend.h"

namespace lamina::dropout {

/// out = x * mask; x and out full [D, T, R, H], may be the same memory.
void forward(int threads, const DropoutMask& mask, std::span<const float> x, std::span<float> out);
/// dx *= mask; dx blocked [D, K, T*R, H/G].
void backward(int threads, const DropoutMask& mask, std::span<float> dx);

/// The same at time step `t` only; dx of the blocks `blocks`, this rank's or all.
void forward_at(int threads, const DropoutMask& mask, int t, std::span<const float> x, std::span<float> out);
void backward_at(int threads, const DropoutMask& mask, int t, const Share& blocks, std::span<float> dx);

}  // namespace lamina::dropout
