#include "kernels/cpu/blocks.h"

#include <algorithm>

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

std::span<const float> BlockGather::gather(std::span<const float> blocked) {
  if (model_axis_.size() == 1) return blocked;
  gathered_.resize(blocked.size() * size(model_axis_.size()));
  model_axis_.all_gather(blocked, std::span(gathered_));
  return gathered_;
}

void BlockGather::run(int groups, int rows, int width, std::span<const float> blocked, float* full,
                      std::size_t group_stride) {
  const Span span(SpanKind::pointwise, "gather of blocks");
  const std::size_t local = size(blocks_.local), n = size(width), row_size = size(blocks_.count) * n;
  check(blocked.size() == size(groups) * local * size(rows) * n,
        "blocks: blocked must be [D, K, rows, width]");
  const float* from = gather(blocked).data();
  for (std::size_t m = 0; m < size(model_axis_.size()); ++m)
    for (std::size_t d = 0; d < size(groups); ++d)
      for (std::size_t k = m * local; k < (m + 1) * local; ++k)
        for (std::size_t row = 0; row < size(rows); ++row, from += n)
          std::copy_n(from, n, full + d * group_stride + row * row_size + k * n);
}

void BlockGather::run_blocked(int groups, int rows, int width, std::span<const float> blocked,
                              std::span<float> all) {
  const Span span(SpanKind::pointwise, "gather of blocks");
  bring_blocks_together(model_axis_.size(), groups, size(rows) * size(width), gather(blocked), all);
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
  check(!out_.empty() || groups_ * rows_ * width_ == 0, "blocks: start() was given no place for the sums");
  if (sums_ != out_.data()) model_axis_.reduce_scatter(std::span<const float>(packed_), out_);
}

void BlockSum::finish_everywhere(std::span<float> all) {
  const Span span(SpanKind::pointwise, "sum of blocks");
  model_axis_.all_reduce(std::span(packed_));
  bring_blocks_together(model_axis_.size(), groups_, size(rows_) * size(width_), packed_, all);
}

}  // namespace lamina
