#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/tree_all_reduce.h"

namespace lamina::cuda {
namespace {

constexpr int kLevels = 32;
/// Shares are multiples of this, so that what NCCL moves stays aligned to 16 bytes.
constexpr std::size_t kGrain = 4;
/// Received by each rank: below this a second exchange costs more than it saves.
constexpr std::size_t kEverywhere = std::size_t{1} << 14;

/// Sum of first[0], first[stride] … first[(kCount - 1) * stride]; kCount is a power of two.
template <int kCount>
__device__ __forceinline__ float tree_of(const float* first, std::size_t stride) {
  if constexpr (kCount == 1) {
    return *first;
  } else {
    return __fadd_rn(tree_of<kCount / 2>(first, stride),
                     tree_of<kCount / 2>(first + kCount / 2 * stride, stride));
  }
}

/// The same for any number of values, as TreeMerger adds them.
__device__ __forceinline__ float tree_of_any(int count, const float* first, std::size_t stride) {
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

/// sums[i] = tree sum over r of received[r][i]; received: [ranks, count]. kRanks 0: any number.
template <int kRanks>
__global__ void add_ranks(const float* received, std::size_t count, int ranks, float* sums) {
  const std::size_t threads = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += threads) {
    if constexpr (kRanks == 0)
      sums[i] = tree_of_any(ranks, received + i, count);
    else
      sums[i] = tree_of<kRanks>(received + i, count);
  }
}

}  // namespace

TreeAllReduce::TreeAllReduce(Device& device, Exchange& exchange, std::size_t scratch_bytes)
    : device_(device),
      exchange_(exchange),
      ranks_(static_cast<std::size_t>(exchange.size())),
      most_(std::max(scratch_bytes / sizeof(float) / ranks_ / kGrain, std::size_t{1}) * kGrain) {}

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
  const auto run = [&](auto* kernel) {
    launch(device_, kernel, for_elements(count), received, count, static_cast<int>(ranks_), sums);
  };
  switch (ranks_) {
    case 2:
      return run(add_ranks<2>);
    case 4:
      return run(add_ranks<4>);
    case 8:
      return run(add_ranks<8>);
    default:
      return run(add_ranks<0>);
  }
}

}  // namespace lamina::cuda
