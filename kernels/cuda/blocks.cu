#include <bit>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/tree.cuh"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

/// [M, groups, K, rows, width]
struct BlockedSizes {
  std::size_t ranks, groups, local, rows, width;

  std::size_t of_rank() const { return groups * local * rows * width; }
};

__global__ void add_leaves(int count, const float* leaves, std::size_t stride, float* out, std::size_t size) {
  for (std::size_t i = first_element(); i < size; i += element_stride())
    out[i] = tree_sum(count, [&](int leaf) { return leaves[static_cast<std::size_t>(leaf) * stride + i]; });
}

// all: [M, groups, K, rows, width]; full: per group [rows, M, K, width].
__global__ void lay_out_rows(BlockedSizes sizes, const float* all, float* full, std::size_t group_stride) {
  const std::size_t count = sizes.ranks * sizes.groups * sizes.local * sizes.rows;
  for (std::size_t item = first_row(); item < count; item += row_stride()) {
    const std::size_t row = item % sizes.rows, tile = item / sizes.rows;
    const std::size_t k = tile % sizes.local, group = tile / sizes.local % sizes.groups;
    const std::size_t rank = tile / sizes.local / sizes.groups;
    const std::size_t block = rank * sizes.local + k, blocks = sizes.ranks * sizes.local;
    float* to = full + group * group_stride + (row * blocks + block) * sizes.width;
    for (std::size_t j = threadIdx.x; j < sizes.width; j += kWarp) to[j] = all[item * sizes.width + j];
  }
}

// partials: [count, K, rows, M * K * width]; sums: [M, groups, K, rows, width], of which the groups from
// `first_group` on are set.
__global__ void add_blocks(BlockedSizes sizes, std::size_t first_group, std::size_t count,
                           const float* partials, float* sums) {
  const std::size_t blocks = sizes.ranks * sizes.local, full_row = blocks * sizes.width;
  for (std::size_t item = first_row(); item < count * sizes.rows * blocks; item += row_stride()) {
    const std::size_t block = item % blocks, row = item / blocks % sizes.rows;
    const std::size_t group = item / blocks / sizes.rows;
    const float* from = partials + (group * sizes.local * sizes.rows + row) * full_row + block * sizes.width;
    const std::size_t tile =
        (block / sizes.local * sizes.groups + first_group + group) * sizes.local + block % sizes.local;
    float* to = sums + (tile * sizes.rows + row) * sizes.width;
    for (std::size_t j = threadIdx.x; j < sizes.width; j += kWarp)
      to[j] = tree_sum(static_cast<int>(sizes.local),
                       [&](int k) { return from[static_cast<std::size_t>(k) * sizes.rows * full_row + j]; });
  }
}

void check_axis(const Share& blocks, const Exchange& model_axis) {
  check(blocks.local * model_axis.size() == blocks.count, "blocks: the model axis must own all of them");
  check(blocks.local <= kMostLeaves && model_axis.size() <= kMostLeaves, "blocks: too many");
}

}  // namespace

void sum_in_tree_order(Device& device, int count, const float* leaves, std::size_t stride, float* out,
                       std::size_t size) {
  check(count >= 1 && count <= kMostLeaves && std::has_single_bit(static_cast<unsigned>(count)),
        "sum in tree order: so many leaves are no full tree");
  launch(device, add_leaves, for_elements(size), count, leaves, stride, out, size);
}

BlockGather::BlockGather(Device& device, const Share& blocks, Exchange& model_axis, std::size_t max_blocked)
    : device_(device), blocks_(blocks), model_axis_(model_axis), max_blocked_(max_blocked) {
  check_axis(blocks, model_axis);
  if (model_axis.size() > 1) all_ = device.allocate<float>(max_blocked * size(model_axis.size()));
}

void BlockGather::run(int groups, int rows, int width, const float* blocked, float* full,
                      std::size_t group_stride) {
  const BlockedSizes sizes{size(model_axis_.size()), size(groups), size(blocks_.local), size(rows),
                           size(width)};
  check(sizes.of_rank() <= max_blocked_, "blocks: more than room was made for");
  const float* all = blocked;
  if (sizes.ranks > 1) {
    model_axis_.all_gather(blocked, all_.view().data(), sizes.of_rank());
    all = all_.view().data();
  }
  launch(device_, lay_out_rows, for_rows(sizes.ranks * sizes.groups * sizes.local * sizes.rows), sizes, all,
         full, group_stride);
}

BlockSum::BlockSum(Device& device, const Share& blocks, Exchange& model_axis, std::size_t max_blocked)
    : device_(device), blocks_(blocks), model_axis_(model_axis), max_blocked_(max_blocked) {
  check_axis(blocks, model_axis);
  if (model_axis.size() == 1) return;
  packed_ = device.allocate<float>(max_blocked * size(model_axis.size()));
  received_ = device.allocate<float>(packed_.size());
}

void BlockSum::start(int groups, int rows, int width, float* out) {
  groups_ = groups;
  rows_ = rows;
  width_ = width;
  out_ = out;
  check(size(groups) * size(blocks_.local) * size(rows) * size(width) <= max_blocked_,
        "blocks: more than room was made for");
}

void BlockSum::add(int first_group, int count, const float* partials) {
  check(first_group >= 0 && first_group + count <= groups_, "blocks: no such groups");
  const BlockedSizes sizes{size(model_axis_.size()), size(groups_), size(blocks_.local), size(rows_),
                           size(width_)};
  launch(device_, add_blocks, for_rows(size(count) * sizes.rows * size(blocks_.count)), sizes,
         size(first_group), size(count), partials, sizes.ranks == 1 ? out_ : packed_.view().data());
}

void BlockSum::finish() {
  if (model_axis_.size() == 1) return;
  const std::size_t part = size(groups_) * size(blocks_.local) * size(rows_) * size(width_);
  model_axis_.all_to_all(packed_.view().data(), received_.view().data(), part);
  sum_in_tree_order(device_, model_axis_.size(), received_.view().data(), part, out_, part);
}

}  // namespace lamina::cuda
