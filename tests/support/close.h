// Comparisons of whole tensors that name the element where they fail, and both values.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace lamina::test {

/// Largest magnitude.
template <class Values>
double scale_of(const Values& values) {
  double scale = 0;
  for (const auto value : values) scale = std::max(scale, std::abs(static_cast<double>(value)));
  return scale;
}

/// Every |actual - expected| is at most tolerance * scale; NaN never passes.
template <class Actual, class Expected>
::testing::AssertionResult all_close(const Actual& actual, const Expected& expected, double tolerance,
                                     double scale) {
  if (std::size(actual) != std::size(expected))
    return ::testing::AssertionFailure()
           << "sizes differ: " << std::size(actual) << " and " << std::size(expected);
  std::size_t worst = 0, wrong = 0;
  double largest = -1;
  for (std::size_t i = 0; i < std::size(actual); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (!(difference <= tolerance * scale)) ++wrong;
    if (difference > largest || std::isnan(difference)) {
      worst = i;
      largest = std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
    }
  }
  if (wrong == 0) return ::testing::AssertionSuccess() << "worst difference " << largest;
  return ::testing::AssertionFailure()
         << wrong << " of " << std::size(actual) << " differ by more than " << tolerance << " of the scale "
         << scale << "; worst at [" << worst << "]: " << actual[worst] << ", expected " << expected[worst];
}

/// The same with `tolerance`, but for at most `few` of the elements.
template <class Actual, class Expected>
::testing::AssertionResult most_close(const Actual& actual, const Expected& expected, double tolerance,
                                      double scale, double few) {
  std::size_t far = 0;
  for (std::size_t i = 0; i < std::min(std::size(actual), std::size(expected)); ++i)
    far +=
        !(std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i])) <= tolerance * scale);
  if (static_cast<double>(far) <= few * static_cast<double>(std::size(expected)))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << far << " of " << std::size(expected) << " differ by more than " << tolerance << " of the scale "
         << scale << ", more than the share of " << few;
}

/// The same as all_close(), relative to the largest expected magnitude.
template <class Actual, class Expected>
::testing::AssertionResult all_close(const Actual& actual, const Expected& expected, double tolerance) {
  return all_close(actual, expected, tolerance, scale_of(expected));
}

/// Every bit is equal (so 0 and -0 differ, and equal NaNs do not).
template <class Left, class Right>
::testing::AssertionResult same_bits(const Left& left, const Right& right) {
  using Value = std::remove_cvref_t<decltype(left[0])>;
  static_assert(std::same_as<Value, std::remove_cvref_t<decltype(right[0])>>);
  using Bits = std::conditional_t<sizeof(Value) == 8, std::uint64_t, std::uint32_t>;
  if (std::size(left) != std::size(right))
    return ::testing::AssertionFailure()
           << "sizes differ: " << std::size(left) << " and " << std::size(right);
  std::size_t first = std::size(left), wrong = 0;
  for (std::size_t i = 0; i < std::size(left); ++i)
    if (std::bit_cast<Bits>(left[i]) != std::bit_cast<Bits>(right[i]) && wrong++ == 0) first = i;
  if (wrong == 0) return ::testing::AssertionSuccess() << "all bits equal";
  return ::testing::AssertionFailure() << wrong << " of " << std::size(left) << " differ; first at [" << first
                                       << "]: " << std::hexfloat << left[first] << " and " << right[first];
}

}  // namespace lamina::test
