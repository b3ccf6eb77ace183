// Repeatable test data. Every tensor is named, so that adding one does not change the others.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/random.h"

namespace lamina::test {

/// `size` values, uniform in [low, high).
template <class Value = float>
std::vector<Value> random_values(std::string_view name, std::size_t size, double low = -1, double high = 1) {
  const RandomStream stream(/*seed=*/7, name);
  std::vector<Value> values(size);
  for (std::size_t i = 0; i < size; ++i)
    values[i] = static_cast<Value>(low + (high - low) * static_cast<double>(stream.uniform(0, i)));
  return values;
}

/// `size` integers, uniform in [low, high].
inline std::vector<std::int32_t> random_integers(std::string_view name, std::size_t size, std::int32_t low,
                                                 std::int32_t high) {
  const RandomStream stream(/*seed=*/7, name);
  std::vector<std::int32_t> values(size);
  for (std::size_t i = 0; i < size; ++i)
    values[i] =
        low + static_cast<std::int32_t>(stream.bits(0, i)[0] % static_cast<std::uint32_t>(high - low + 1));
  return values;
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& values) {
  return std::vector<To>(values.begin(), values.end());
}

}  // namespace lamina::test
