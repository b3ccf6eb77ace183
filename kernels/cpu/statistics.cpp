#include "kernels/cpu/statistics.h"

#include <bit>
#include <cmath>

#include "runtime/error.h"

namespace lamina {
namespace {

using lstm_rows::Moments;
using lstm_rows::Normalizer;
using lstm_rows::Sums;

/// Merges part(first) … part(first + count - 1), a power of two; merge(left, right, parts on each side).
template <class Part, class Merge>
auto merge_tree(std::size_t first, std::size_t count, const Part& part, const Merge& merge)
    -> decltype(part(first)) {
  if (count == 1) return part(first);
  const std::size_t half = count / 2;
  return merge(merge_tree(first, half, part, merge), merge_tree(first + half, half, part, merge), half);
}

}  // namespace

// merge(left, right, blocks on each side): over the blocks of a rank, then over the ranks.
template <class Pair, class Merge>
std::span<const Pair> Statistics::merge(std::span<const Pair> parts, const Merge& merge) {
  static_assert(sizeof(Pair) == 2 * sizeof(float));
  check(std::has_single_bit(blocks_) && parts.size() % blocks_ == 0,
        "statistics: parts must be [rows, blocks]");
  const std::size_t rows = parts.size() / blocks_;
  own_.resize(2 * rows);
  auto* own = reinterpret_cast<Pair*>(own_.data());
  for (std::size_t row = 0; row < rows; ++row)
    own[row] = merge_tree(
        row * blocks_, blocks_, [&](std::size_t i) { return parts[i]; }, merge);
  if (ranks() == 1) return {own, rows};

  all_.resize(own_.size() * ranks());
  axis_->all_gather(std::span<const float>(own_), std::span(all_));
  merged_.resize(own_.size());
  const auto* all = reinterpret_cast<const Pair*>(all_.data());
  auto* merged = reinterpret_cast<Pair*>(merged_.data());
  const auto over_ranks = [&](const Pair& a, const Pair& b, std::size_t n) {
    return merge(a, b, n * blocks_);
  };
  for (std::size_t row = 0; row < rows; ++row)
    merged[row] = merge_tree(
        0, ranks(), [&](std::size_t rank) { return all[rank * rows + row]; }, over_ranks);
  return {merged, rows};
}

void Statistics::normalizers(std::span<const Moments> parts, std::size_t size, float epsilon,
                             std::span<Normalizer> out) {
  const auto chan = [size](const Moments& a, const Moments& b, std::size_t blocks) {
    const float difference = b.mean - a.mean;
    const float half = 0.5f * static_cast<float>(blocks * size);  // n_a n_b / (n_a + n_b)
    return Moments{a.mean + 0.5f * difference, a.m2 + b.m2 + difference * difference * half};
  };
  const std::span<const Moments> rows = merge(parts, chan);
  const auto count = static_cast<float>(size * blocks_ * ranks());
  check(rows.size() == out.size(), "statistics: one normalizer per row");
  for (std::size_t i = 0; i < rows.size(); ++i)
    out[i] = {rows[i].mean, 1 / std::sqrt(rows[i].m2 / count + epsilon)};
}

void Statistics::means(std::span<const Sums> parts, std::size_t size, std::span<Sums> out) {
  const auto add = [](const Sums& a, const Sums& b, std::size_t) {
    return Sums{a.dn + b.dn, a.dn_n + b.dn_n};
  };
  const std::span<const Sums> rows = merge(parts, add);
  const auto count = static_cast<float>(size * blocks_ * ranks());
  check(rows.size() == out.size(), "statistics: one mean per row");
  for (std::size_t i = 0; i < rows.size(); ++i) out[i] = {rows[i].dn / count, rows[i].dn_n / count};
}

}  // namespace lamina
