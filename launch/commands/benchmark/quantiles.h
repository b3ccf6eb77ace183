// What is said of repeated measurements.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

namespace lamina {

/// The value below which a share `q` (0 to 1) of `values` lies, between neighbours in proportion. Values in
/// any order, at least one.
double quantile(std::vector<double> values, double q);
double median(const std::vector<double>& values);
double least(const std::vector<double>& values);
double largest(const std::vector<double>& values);

/// {"median", "min", "max", "repetitions": the values times `unit` in the order they were measured}
nlohmann::ordered_json summary_of(const std::vector<double>& values, double unit = 1);

}  // namespace lamina
