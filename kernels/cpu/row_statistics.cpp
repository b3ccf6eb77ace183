#include "kernels/cpu/row_statistics.h"

#include <algorithm>
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

/// Chan's formula, of `count` values in each leaf.
struct MergeMoments {
  std::size_t rows, count;

  void operator()(float* left, const float* right, std::size_t leaves) const {
    const float weight = 0.5f * static_cast<float>(count * leaves);
    for (std::size_t row = 0; row < rows; ++row) {
      const float distance = right[row] - left[row];
      left[row] += 0.5f * distance;
      left[rows + row] += right[rows + row] + distance * distance * weight;
    }
  }
};

struct MergeSums {
  std::size_t rows;

  void operator()(float* left, const float* right, std::size_t) const {
    for (std::size_t i = 0; i < 2 * rows; ++i) left[i] += right[i];
  }
};

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
void RowStatistics::merge_own(const Merge& merge_pair) {
  const Span span(SpanKind::pointwise, "statistics");
  merge_in_tree_order(partials_.data(), blocks_, 2 * rows_, 1, merge_pair);
}

template <class Merge>
float* RowStatistics::merge_all(const Merge& merge_pair) {
  const std::size_t ranks = static_cast<std::size_t>(axis_.size());
  if (ranks == 1) return partials_.data();
  merge_in_tree_order(gathered_.data(), ranks, 2 * rows_, blocks_, merge_pair);
  return gathered_.data();
}

void RowStatistics::send(ExchangeRound& round) {
  if (axis_.size() == 1) return;
  check(&round.axis() == &axis_, "row statistics: the round is of another axis");
  round.gather(own(), [this](int rank, std::size_t first, std::span<const float> values) {
    std::ranges::copy(values, &gathered_[static_cast<std::size_t>(rank) * 2 * rows_ + first]);
  });
}

void RowStatistics::send_moments(std::size_t count, ExchangeRound& round) {
  merge_own(MergeMoments{rows_, count});
  send(round);
}

void RowStatistics::take_moments(std::size_t count, float epsilon, float* mean, float* scale) {
  const Span span(SpanKind::pointwise, "statistics");
  const float* merged = merge_all(MergeMoments{rows_, count});
  const float values = static_cast<float>(count * blocks_ * static_cast<std::size_t>(axis_.size()));
  for (std::size_t row = 0; row < rows_; ++row) {
    mean[row] = merged[row];
    scale[row] = 1.0f / std::sqrt(merged[rows_ + row] / values + epsilon);
  }
}

void RowStatistics::merge_moments(std::size_t count, float epsilon, float* mean, float* scale) {
  merge_own(MergeMoments{rows_, count});
  axis_.all_gather(own(), std::span(gathered_));
  take_moments(count, epsilon, mean, scale);
}

void RowStatistics::send_sums(ExchangeRound& round) {
  merge_own(MergeSums{rows_});
  send(round);
}

RowStatistics::Means RowStatistics::take_sums(std::size_t count) {
  const Span span(SpanKind::pointwise, "statistics");
  float* merged = merge_all(MergeSums{rows_});
  for (std::size_t i = 0; i < 2 * rows_; ++i) merged[i] /= static_cast<float>(count);
  return {merged, merged + rows_};
}

RowStatistics::Means RowStatistics::merge_sums(std::size_t count) {
  merge_own(MergeSums{rows_});
  axis_.all_gather(own(), std::span(gathered_));
  return take_sums(count);
}

}  // namespace lamina
#endif
