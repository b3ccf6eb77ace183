#include "kernels/cpu/blocks.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/block_tree.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

/// [M, groups, K, piece] -> [groups, M * K, piece]
void bring_blocks_together(int ranks, int groups, std::size_t piece, std::span<const float> by_rank,
                           std::span<float> by_group) {
  const std::size_t of_rank = by_rank.size() / size(ranks), blocks = of_rank / size(groups);
  check(by_rank.size() == by_group.size() && blocks % piece == 0, "blocks: sizes do not fit");
  for (std::size_t m = 0; m < size(ranks); ++m)
    for (std::size_t d = 0; d < size(groups); ++d)
      std::copy_n(by_rank.data() + m * of_rank + d * blocks, blocks,
                  by_group.data() + (d * size(ranks) + m) * blocks);
}

}  // namespace

BlockGather::BlockGather(const Share& blocks, Communicator& model_axis)
    : blocks_(blocks), model_axis_(model_axis) {
  check(blocks.local * model_axis.size() == blocks.count, "blocks: the model axis must own all of them");
}

void BlockGather::run(int groups, int rows, int width, std::span<const float> blocked, float* full,
                      std::size_t group_stride) {
  const Span span(SpanKind::pointwise, "gather of blocks");
  set_rows(groups, rows, width, blocked, full, group_stride);
  model_axis_.all_gather_pieces(blocked, [this](int rank, std::size_t first, std::span<const float> values) {
    take_rows(rank, first, values);
  });
}

void BlockGather::send(int groups, int rows, int width, std::span<const float> blocked, float* full,
                       std::size_t group_stride, ExchangeRound& round) {
  check(&round.axis() == &model_axis_, "blocks: the round is of another axis");
  set_rows(groups, rows, width, blocked, full, group_stride);
  round.gather(blocked, [this](int rank, std::size_t first, std::span<const float> values) {
    take_rows(rank, first, values);
  });
}

void BlockGather::set_rows(int groups, int rows, int width, std::span<const float> blocked, float* full,
                           std::size_t group_stride) {
  check(blocked.size() == size(groups) * size(blocks_.local) * size(rows) * size(width),
        "blocks: blocked must be [D, K, rows, width]");
  rows_to_ = {size(rows), size(width), full, group_stride};
}

// A rank's part is [groups, K, rows, width], and a piece of it any stretch of that.
void BlockGather::take_rows(int rank, std::size_t first, std::span<const float> values) const {
  const auto [rows, n, full, group_stride] = rows_to_;
  const std::size_t local = size(blocks_.local), row_size = size(blocks_.count) * n;
  const std::size_t before = size(rank) * local, run = first / n;
  std::size_t skip = first % n, row = run % rows, k = run / rows % local;
  float* group = full + run / rows / local * group_stride;
  for (std::size_t count; !values.empty(); values = values.subspan(count), skip = 0) {
    count = std::min(n - skip, values.size());
    std::copy_n(values.data(), count, group + row * row_size + (before + k) * n + skip);
    if (++row < rows) continue;
    row = 0;
    if (++k < local) continue;
    k = 0;
    group += group_stride;
  }
}

void BlockGather::run_blocked(int groups, int rows, int width, std::span<const float> blocked,
                              std::span<float> all) {
  const Span span(SpanKind::pointwise, "gather of blocks");
  const std::size_t of_group = size(blocks_.local) * size(rows) * size(width);
  check(blocked.size() == size(groups) * of_group && all.size() == blocked.size() * size(model_axis_.size()),
        "blocks: sizes do not fit");
  model_axis_.all_gather_pieces(blocked, [&](int rank, std::size_t first, std::span<const float> values) {
    for (std::size_t count; !values.empty(); values = values.subspan(count), first += count) {
      const std::size_t group = first / of_group, skip = first % of_group;
      count = std::min(of_group - skip, values.size());
      std::copy_n(values.data(), count,
                  all.data() + (group * size(model_axis_.size()) + size(rank)) * of_group + skip);
    }
  });
}

void BlockGather::send_parts(int groups, int parts, std::size_t part_size, std::span<const float> blocked,
                             Place place, ExchangeRound& round) {
  check(blocked.size() == size(groups) * size(blocks_.local) * size(parts) * part_size,
        "blocks: blocked must be [D, K, parts, size]");
  check(&round.axis() == &model_axis_, "blocks: the round is of another axis");
  parts_to_ = {size(parts), part_size, std::move(place)};
  round.gather(blocked, [this](int rank, std::size_t first, std::span<const float> values) {
    take_parts(rank, first, values);
  });
}

void BlockGather::take_parts(int rank, std::size_t first, std::span<const float> values) const {
  const std::size_t local = size(blocks_.local), parts = parts_to_.parts, part_size = parts_to_.size;
  for (std::size_t count; !values.empty(); values = values.subspan(count), first += count) {
    const std::size_t part = first / part_size, skip = first % part_size, block = part / parts;
    count = std::min(part_size - skip, values.size());
    float* to = parts_to_.place(block / local, size(rank) * local + block % local, part % parts);
    std::copy_n(values.data(), count, to + skip);
  }
}

BlockSum::BlockSum(const Share& blocks, Communicator& model_axis) : blocks_(blocks), model_axis_(model_axis) {
  check(blocks.local * model_axis.size() == blocks.count, "blocks: the model axis must own all of them");
}

void BlockSum::start(int groups, int rows, int width, std::span<float> out) {
  groups_ = groups;
  rows_ = rows;
  width_ = width;
  out_ = out;
  const std::size_t blocked = size(groups) * size(blocks_.local) * size(rows) * size(width);
  check(out.empty() || out.size() == blocked, "blocks: the sums must be [D, K, rows, width]");
  if (model_axis_.size() == 1 && !out.empty()) {
    sums_ = out.data();
  } else {
    packed_.resize(blocked * size(model_axis_.size()));
    sums_ = packed_.data();
  }
}

void BlockSum::add(int group, int first_row, int count, std::span<const float> partials) {
  const std::size_t stride = size(count) * size(blocks_.count) * size(width_);
  check(partials.size() == size(blocks_.local) * stride, "blocks: partials must be [K, count, G * width]");
  add(group, first_row, count, partials.data(), stride);
}

void BlockSum::check_rows(int group, int first_row, int count) const {
  check(group >= 0 && group < groups_ && first_row >= 0 && first_row + count <= rows_,
        "blocks: no such rows");
}

// Of the columns of block `block`, [M, groups, K, rows, width].
float* BlockSum::place(int group, std::size_t block, std::size_t row) const {
  const std::size_t local = size(blocks_.local);
  const std::size_t tile = (block / local * size(groups_) + size(group)) * local + block % local;
  return sums_ + (tile * size(rows_) + row) * size(width_);
}

void BlockSum::add(int group, int first_row, int count, const float* partials, std::size_t stride) {
  check_rows(group, first_row, count);
  const std::size_t n = size(width_);
  for (std::size_t row = size(first_row); row < size(first_row + count); ++row)
    for (std::size_t g = 0; g < size(blocks_.count); ++g, partials += n)
      add_in_tree_order(partials, size(blocks_.local), stride, n, place(group, g, row));
}

void BlockSum::set(int group, int first_row, int count, const float* sums) {
  check_rows(group, first_row, count);
  const std::size_t n = size(width_);
  for (std::size_t row = size(first_row); row < size(first_row + count); ++row)
    for (std::size_t g = 0; g < size(blocks_.count); ++g, sums += n)
      std::copy_n(sums, n, place(group, g, row));
}

void BlockSum::finish() {
  const Span span(SpanKind::pointwise, "sum of blocks");
  if (has_parts()) model_axis_.reduce_scatter(std::span<const float>(packed_), out_);
}

void BlockSum::finish_everywhere(std::span<float> all) {
  const Span span(SpanKind::pointwise, "sum of blocks");
  model_axis_.all_reduce(std::span(packed_));
  take_everywhere(all);
}

void BlockSum::send(ExchangeRound& round) {
  check(&round.axis() == &model_axis_, "blocks: the round is of another axis");
  if (has_parts()) round.sum_parts(packed_, out_);
}

// Of several ranks: one alone has its sums in their place.
bool BlockSum::has_parts() const {
  check(!out_.empty() || groups_ * rows_ * width_ == 0, "blocks: start() was given no place for the sums");
  return sums_ != out_.data();
}

void BlockSum::send_everywhere(ExchangeRound& round) {
  check(&round.axis() == &model_axis_, "blocks: the round is of another axis");
  round.sum(packed_);
}

void BlockSum::take_everywhere(std::span<float> all) const {
  bring_blocks_together(model_axis_.size(), groups_, size(rows_) * size(width_), packed_, all);
}

}  // namespace lamina
