// bfloat16 by arithmetic: eight significant bits and the exponents of a float.
#pragma once

#include <algorithm>
#include <cmath>

namespace lamina::reference {

/// To the nearest bf16, ties to the even one. NaN and infinities stay.
inline double rounded_to_bf16(double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  constexpr int kBits = 8, kLeastExponent = -125;  // of a normal number in [0.5, 1) * 2^exponent
  int exponent = 0;
  std::frexp(value, &exponent);
  const int last = std::max(exponent, kLeastExponent) - kBits;
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -last)), last);
  return std::abs(rounded) < 0x1p128 ? rounded : std::copysign(INFINITY, value);
}

}  // namespace lamina::reference
