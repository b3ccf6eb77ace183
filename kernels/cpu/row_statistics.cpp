#include "kernels/cpu/row_statistics.h"

#include <bit>
#include <cmath>

#include "runtime/error.h"
#include "runtime/trace.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_statistics.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

void row_moments(const float* values, std::size_t rows, std::size_t width, float* mean, float* m2) {
  const float share = 1.0f / static_cast<float>(width);
  for (std::size_t row = 0; row < rows; ++row, values += width) {
    Vector sum = constant(0), squares = constant(0);
    for_each_vector(width,
                    [&](auto lanes, std::size_t i) HWY_ATTR { sum = hn::Add(sum, lanes.load(values + i)); });
    mean[row] = sum_of_lanes(sum) * share;
    const Vector middle = constant(mean[row]);
    for_each_vector(width, [&](auto lanes, std::size_t i) HWY_ATTR {
      const Vector distance = lanes.only(hn::Sub(lanes.load(values + i), middle));
      squares = hn::MulAdd(distance, distance, squares);
    });
    m2[row] = sum_of_lanes(squares);
  }
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina {

HWY_EXPORT(row_moments);

void row_moments(const float* values, std::size_t rows, std::size_t width, float* mean, float* m2) {
  HWY_DYNAMIC_DISPATCH(row_moments)(values, rows, width, mean, m2);
}

namespace {

/// Merges nodes [count, 2 * rows] into the first; merge(left, right, leaves in each).
template <class Merge>
void merge_in_tree_order(float* nodes, std::size_t count, std::size_t size, std::size_t leaves,
                         const Merge& merge) {
  for (std::size_t step = 1; step < count; step *= 2)
    for (std::size_t left = 0; left < count; left += 2 * step)
      merge(nodes + left * size, nodes + (left + step) * size, leaves * step);
}

}  // namespace

RowStatistics::RowStatistics(int blocks, Communicator& axis)
    : blocks_(static_cast<std::size_t>(blocks)), axis_(axis) {
  check(std::has_single_bit(blocks_) && std::has_single_bit(static_cast<std::size_t>(axis.size())),
        "row statistics: blocks and ranks must be powers of two");
}

void RowStatistics::start(std::size_t rows) {
  rows_ = rows;
  partials_.resize(blocks_ * 2 * rows);
  gathered_.resize(static_cast<std::size_t>(axis_.size()) * 2 * rows);
}

template <class Merge>
float* RowStatistics::merge(const Merge& merge_pair) {
  const Span span(SpanKind::pointwise, "statistics");
  merge_in_tree_order(partials_.data(), blocks_, 2 * rows_, 1, merge_pair);
  const std::size_t ranks = static_cast<std::size_t>(axis_.size());
  if (ranks == 1) return partials_.data();
  axis_.all_gather(std::span<const float>(partials_).first(2 * rows_), std::span(gathered_));
  merge_in_tree_order(gathered_.data(), ranks, 2 * rows_, blocks_, merge_pair);
  return gathered_.data();
}

void RowStatistics::merge_moments(std::size_t count, float epsilon, float* mean, float* scale) {
  const float* merged = merge([&](float* left, const float* right, std::size_t leaves) {
    const float weight = 0.5f * static_cast<float>(count * leaves);
    for (std::size_t row = 0; row < rows_; ++row) {
      const float distance = right[row] - left[row];
      left[row] += 0.5f * distance;
      left[rows_ + row] += right[rows_ + row] + distance * distance * weight;
    }
  });
  const float values = static_cast<float>(count * blocks_ * static_cast<std::size_t>(axis_.size()));
  for (std::size_t row = 0; row < rows_; ++row) {
    mean[row] = merged[row];
    scale[row] = 1.0f / std::sqrt(merged[rows_ + row] / values + epsilon);
  }
}

RowStatistics::Means RowStatistics::merge_sums(std::size_t count) {
  float* merged = merge([&](float* left, const float* right, std::size_t) {
    for (std::size_t i = 0; i < 2 * rows_; ++i) left[i] += right[i];
  });
  for (std::size_t i = 0; i < 2 * rows_; ++i) merged[i] /= static_cast<float>(count);
  return {merged, merged + rows_};
}

}  // namespace lamina
#endif
