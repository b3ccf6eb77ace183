// What surrounds the persistent kernels: weights as they want them, and sums that need not be in the loop.
// What crosses unit blocks is summed block by block, as the blocks may be on several ranks.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "kernels/cuda/recurrence/row_sums.cuh"

namespace lamina::cuda {
namespace {

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t thread_count() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

/// W_h - mean at a gate of a unit, in some of its rows and columns.
struct CentredWeights {
  const float *W_h, *mean;
  int units;         ///< U
  std::int64_t row;  ///< elements from one to the next

  __device__ float at(int unit, int gate, int column) const {
    const int p = unit / units, u = unit % units;
    const std::int64_t rows_before = static_cast<std::int64_t>(p * 4 + gate) * units + u;
    return W_h[rows_before * row + column] - (mean == nullptr ? 0.0f : mean[column]);
  }
};

// Element i of both packed arrays: [member, pieces of 32 along k, tiles of 8 columns, lane, 8 along k], the
// fragments of persistent_member.cuh. Forward, k is a unit whose h comes in and the columns are the member's
// gates [4, units]; backward, k is a gate whose da_h comes in, [members, 4, units], and the columns are the
// member's units. Members and units are this rank's, k is of all ranks.
__global__ void pack_weights_kernel(CentredWeights rows, CentredWeights columns, std::int64_t count, int H,
                                    int units, __nv_bfloat16* forward, __nv_bfloat16* backward) {
  const int gates = 4 * units;
  const std::int64_t of_member = static_cast<std::int64_t>(gates) * H;
  for (std::int64_t i = thread_index(); i < count; i += thread_count()) {
    const int member = static_cast<int>(i / of_member), place = static_cast<int>(i % of_member);
    const int within = place % 8, lane = place / 8 % 32, tile = place / 256;
    const int depth = 8 * (lane % 4) + within, column = lane / 4;
    {
      const int k = tile / (gates / 8) * 32 + depth, n = tile % (gates / 8) * 8 + column;
      forward[i] = __float2bfloat16_rn(rows.at(member * units + n % units, n / units, k));
    }
    {
      const int k = tile / (units / 8) * 32 + depth, n = tile % (units / 8) * 8 + column;
      const int from = k / gates * units + k % units, gate = k % gates / units;
      backward[i] = __float2bfloat16_rn(columns.at(from, gate, member * units + n));
    }
  }
}

// A warp for each row of each step of each block.
__global__ void sum_rows_kernel(RowSums b) {
  const Sequence& at = b.at;
  const int lane = static_cast<int>(threadIdx.x), width = 4 * at.units;
  const std::int64_t rows = static_cast<std::int64_t>(b.steps) * at.lanes();
  const std::int64_t all_rows = static_cast<std::int64_t>(at.max_steps) * at.lanes();
  for (std::size_t item = first_row(); item < static_cast<std::size_t>(at.blocks * rows);
       item += row_stride()) {
    const auto i = static_cast<std::int64_t>(item);
    const int p = static_cast<int>(i / rows), t = static_cast<int>(i % rows / at.lanes());
    const int d = static_cast<int>(i % at.lanes()) / at.rows, r = static_cast<int>(i % at.rows);
    const std::int64_t row = at.statistics(d, t, r);
    const Normal h{b.of_h.mean[row], b.of_h.scale[row]}, x{b.of_x.mean[row], b.of_x.scale[row]};
    const bool valid = b.lengths == nullptr || t < b.lengths[at.lane(d, r)];
    RowPair of_h, of_x;
    for (int j = lane; valid && j < width; j += 32) {
      const std::int64_t place = at.gates(d, p, t, r) + j;
      const float dn_h = b.parameters.gain_h[p * width + j] * b.dz[place];
      const float dn_x = b.parameters.gain_x[p * width + j] * b.dz[place];
      of_h = {of_h.first + dn_h, fmaf(dn_h, h.of(b.a_h[place]), of_h.second)};
      of_x = {of_x.first + dn_x, fmaf(dn_x, x.of(b.a_x[place]), of_x.second)};
    }
    of_h = {sum_of_lanes(of_h.first), sum_of_lanes(of_h.second)};
    of_x = {sum_of_lanes(of_x.first), sum_of_lanes(of_x.second)};
    if (lane != 0) continue;
    const std::int64_t to = 2 * p * all_rows + row;
    b.sums_h[to] = of_h.first;
    b.sums_h[to + all_rows] = of_h.second;
    b.sums_x[to] = of_x.first;
    b.sums_x[to + all_rows] = of_x.second;
  }
}

__global__ void merge_rows_kernel(Sequence at, int steps, const float* sums, SavedNormals means) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t rows = static_cast<std::int64_t>(steps) * at.lanes();
  const std::int64_t all_rows = static_cast<std::int64_t>(at.max_steps) * at.lanes();
  for (std::size_t row = first_row(); row < static_cast<std::size_t>(rows); row += row_stride()) {
    const RowPair mean = merge_means(at.all_blocks, 4 * at.hidden(), lane, [&](int block) -> RowPair {
      const float* first = sums + 2 * block * all_rows + static_cast<std::int64_t>(row);
      return {first[0], first[all_rows]};
    });
    if (lane != 0) continue;
    means.mean[row] = mean.first;
    means.scale[row] = mean.second;
  }
}

}  // namespace

void pack_weights(const Device& device, const Sequence& at, int units, const MemberWeights& weights) {
  const int H = at.hidden();
  const float* mean = weights.mean;
  const std::int64_t count = std::int64_t{4} * H * at.own_blocks * at.units;
  launch(device, pack_weights_kernel, for_elements(static_cast<std::size_t>(count)),
         CentredWeights{weights.rows, mean, at.units, H},
         CentredWeights{weights.columns, mean == nullptr ? nullptr : mean + weights.first_unit, at.units,
                        weights.row_of_columns},
         count, H, units, weights.forward, weights.backward);
}

void sum_rows(const Device& device, const RowSums& rows) {
  const auto count = static_cast<std::size_t>(rows.steps) * static_cast<std::size_t>(rows.at.lanes());
  launch(device, sum_rows_kernel, for_rows(static_cast<std::size_t>(rows.at.blocks) * count), rows);
}

void merge_rows(const Device& device, const Sequence& at, int steps, const float* sums,
                const SavedNormals& means) {
  const auto count = static_cast<std::size_t>(steps) * static_cast<std::size_t>(at.lanes());
  launch(device, merge_rows_kernel, for_rows(count), at, steps, sums, means);
}

}  // namespace lamina::cuda
