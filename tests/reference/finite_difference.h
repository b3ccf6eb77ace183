// Derivatives by differences, the root of trust of every gradient.
#pragma once

#include <functional>
#include <vector>

namespace lamina::reference {

/// d loss / d x[i] for every i, by central differences of fourth order (truncation step^4). Each value is
/// put back.
inline std::vector<double> finite_differences(std::vector<double>& x, const std::function<double()>& loss,
                                              double step = 1e-4) {
  std::vector<double> derivative;
  for (double& value : x) {
    const double middle = value;
    const auto at = [&](double offset) {
      value = middle + offset;
      return loss();
    };
    const double near = at(step) - at(-step), far = at(2 * step) - at(-2 * step);
    derivative.push_back((8 * near - far) / (12 * step));
    value = middle;
  }
  return derivative;
}

}  // namespace lamina::reference
