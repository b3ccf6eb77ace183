#include "launch/commands/benchmark/quantiles.h"

#include <algorithm>
#include <cmath>

#include "runtime/error.h"

namespace lamina {

double quantile(std::vector<double> values, double q) {
  check(!values.empty() && q >= 0 && q <= 1, "a quantile needs values, and a share from 0 to 1");
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], place - static_cast<double>(below));
}

double median(const std::vector<double>& values) { return quantile(values, 0.5); }
double least(const std::vector<double>& values) { return quantile(values, 0); }
double largest(const std::vector<double>& values) { return quantile(values, 1); }

nlohmann::ordered_json summary_of(const std::vector<double>& values, double unit) {
  std::vector<double> all;
  for (const double value : values) all.push_back(value * unit);
  return {{"median", median(all)}, {"min", least(all)}, {"max", largest(all)}, {"repetitions", all}};
}

}  // namespace lamina
