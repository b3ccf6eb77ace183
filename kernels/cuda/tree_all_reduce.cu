#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/tree.cuh"
#include "kernels/cuda/tree_all_reduce.h"

namespace lamina::cuda {
namespace {

constexpr int kLevels = 32;
/// Shares are multiples of this, so that what NCCL moves stays aligned to 16 bytes.
constexpr std::size_t kGrain = 4;
/// Received by each rank: below this a second exchange costs more than it saves.
constexpr std::size_t kEverywhere = std::size_t{1} << 14;

/// Sum of any number of values, as TreeMerger adds them: first[0], first[stride], …
__device__ __forceinline__ float sum_of_any(int count, const float* first, std::size_t stride) {
  float waiting[kLevels];
  int held = 0;
  for (int i = 0; i < count; ++i) {
    float sum = first[static_cast<std::size_t>(i) * stride];
    for (int carry = i; carry & 1; carry >>= 1) sum = __fadd_rn(waiting[--held], sum);
    waiting[held++] = sum;
  }
  float total = waiting[--held];
  while (held > 0) total = __fadd_rn(waiting[--held], total);
  return total;
}

/// sums[i] = tree sum over r of received[r][i]; received: [ranks, count].
__global__ void add_ranks(const float* received, std::size_t count, int ranks, float* sums) {
  const bool is_full = (ranks & (ranks - 1)) == 0 && ranks <= kMostLeaves;
  for (std::size_t i = first_element(); i < count; i += element_stride()) {
    const float* first = received + i;
    sums[i] = is_full
                  ? tree_sum(ranks, [&](int rank) { return first[static_cast<std::size_t>(rank) * count]; })
                  : sum_of_any(ranks, first, count);
  }
}

}  // namespace

TreeAllReduce::TreeAllReduce(Device& device, Exchange& exchange, std::size_t scratch_bytes)
    : device_(device),
      exchange_(exchange),
      ranks_(static_cast<std::size_t>(exchange.size())),
      most_(std::max(scratch_bytes / sizeof(float) / ranks_ / kGrain, std::size_t{1}) * kGrain) {}

void TreeAllReduce::reserve(std::size_t values) {
  if (ranks_ == 1) return;
  const std::size_t everywhere = std::max(kEverywhere, ranks_ * ranks_ * kGrain);
  scratch(std::max(std::min(values, most_ * ranks_), std::min(values * ranks_, everywhere)));
}

// A rank gets its share of everyone's values, adds it up, and all gather the sums. What cannot be shared
// equally is added up by everyone.
void TreeAllReduce::sum(std::span<float> values) {
  if (ranks_ == 1) return;
  while (values.size() * ranks_ > kEverywhere && values.size() >= ranks_ * kGrain) {
    const std::size_t share = std::min(values.size() / ranks_ / kGrain * kGrain, most_);
    sum_by_shares(values.data(), share);
    values = values.subspan(share * ranks_);
  }
  sum_everywhere(values.data(), values.size());
}

void TreeAllReduce::sum_by_shares(float* values, std::size_t share) {
  float* from_all = scratch(share * ranks_);
  float* own = values + share * static_cast<std::size_t>(exchange_.rank());
  exchange_.all_to_all(values, from_all, share);
  add_up(from_all, share, own);
  exchange_.all_gather(own, values, share);
}

void TreeAllReduce::sum_everywhere(float* values, std::size_t count) {
  if (count == 0) return;
  float* from_all = scratch(count * ranks_);
  exchange_.all_gather(values, from_all, count);
  add_up(from_all, count, values);
}

float* TreeAllReduce::scratch(std::size_t size) {
  if (scratch_.size() < size) {
    scratch_ = {};  // before its successor is taken
    scratch_ = device_.allocate<float>(size);
  }
  return scratch_.view().data();
}

void TreeAllReduce::add_up(const float* received, std::size_t count, float* sums) {
  launch(device_, add_ranks, for_elements(count), received, count, static_cast<int>(ranks_), sums);
}

}  // namespace lamina::cuda
