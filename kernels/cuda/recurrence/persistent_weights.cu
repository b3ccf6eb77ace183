// What surrounds the persistent kernels: weights as they want them, and sums that need not be in the loop.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "kernels/cuda/recurrence/row_sums.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace lamina::cuda {
namespace {

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t thread_count() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

constexpr int kColumnsOfBlock = 32, kRowsAtOnce = 16;

// Thread (x, y) sums rows y, y + 16, … of a column; then the 16 sums are added up in order.
__global__ void mean_of_columns_kernel(int rows, int columns, const float* values, float* mean) {
  float* sums = shared_memory<float>();
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int column = static_cast<int>(blockIdx.x) * kColumnsOfBlock + x;
  float sum = 0;
  if (column < columns)
    for (int row = y; row < rows; row += kRowsAtOnce)
      sum = sum + values[static_cast<std::int64_t>(row) * columns + column];
  sums[y * kColumnsOfBlock + x] = sum;
  __syncthreads();
  if (y != 0 || column >= columns) return;
  sum = 0;
  for (int i = 0; i < kRowsAtOnce; ++i) sum = sum + sums[i * kColumnsOfBlock + x];
  mean[column] = sum / static_cast<float>(rows);
}

/// W_h - mean at a gate of a unit of the layer.
struct CentredWeights {
  const float *W_h, *mean;
  int units, hidden;  ///< U, H

  __device__ float at(int unit, int gate, int column) const {
    const int p = unit / units, u = unit % units;
    const std::int64_t row = static_cast<std::int64_t>(p * 4 + gate) * units + u;
    return W_h[row * hidden + column] - (mean == nullptr ? 0.0f : mean[column]);
  }
};

// Element i of both packed arrays: [member, pieces of 32 along k, tiles of 8 columns, lane, 8 along k], the
// fragments of persistent_member.cuh. Forward, k is a unit whose h comes in and the columns are the member's
// gates [4, units]; backward, k is a gate whose da_h comes in, [members, 4, units], and the columns are the
// member's units.
__global__ void pack_weights_kernel(CentredWeights weights, int units, __nv_bfloat16* forward,
                                    __nv_bfloat16* backward) {
  const int gates = 4 * units, H = weights.hidden;
  const std::int64_t of_member = static_cast<std::int64_t>(gates) * H;
  for (std::int64_t i = thread_index(); i < 4 * static_cast<std::int64_t>(H) * H; i += thread_count()) {
    const int member = static_cast<int>(i / of_member), place = static_cast<int>(i % of_member);
    const int within = place % 8, lane = place / 8 % 32, tile = place / 256;
    const int depth = 8 * (lane % 4) + within, column = lane / 4;
    {
      const int k = tile / (gates / 8) * 32 + depth, n = tile % (gates / 8) * 8 + column;
      forward[i] = __float2bfloat16_rn(weights.at(member * units + n % units, n / units, k));
    }
    {
      const int k = tile / (units / 8) * 32 + depth, n = tile % (units / 8) * 8 + column;
      const int from = k / gates * units + k % units, gate = k % gates / units;
      backward[i] = __float2bfloat16_rn(weights.at(from, gate, member * units + n));
    }
  }
}

// A warp for each row of each step.
__global__ void sum_rows_kernel(RowSums b) {
  const Sequence& at = b.at;
  const int lane = static_cast<int>(threadIdx.x) % 32, width = 4 * at.units;
  const std::int64_t rows = static_cast<std::int64_t>(b.steps) * at.lanes();
  const float one = 1.0f / static_cast<float>(4 * at.hidden());
  for (std::int64_t i = thread_index() / 32; i < rows; i += thread_count() / 32) {
    const int t = static_cast<int>(i / at.lanes());
    const int d = static_cast<int>(i % at.lanes()) / at.rows, r = static_cast<int>(i % at.rows);
    const std::int64_t row = at.statistics(d, t, r);
    const Normal h{b.of_h.mean[row], b.of_h.scale[row]}, x{b.of_x.mean[row], b.of_x.scale[row]};
    const bool valid = b.lengths == nullptr || t < b.lengths[at.lane(d, r)];
    RowPair of_h, of_x;
    for (int p = 0; valid && p < at.blocks; ++p)
      for (int j = lane; j < width; j += 32) {
        const std::int64_t place = at.gates(d, p, t, r) + j;
        const float dn_h = b.parameters.gain_h[p * width + j] * b.dz[place];
        const float dn_x = b.parameters.gain_x[p * width + j] * b.dz[place];
        of_h = {of_h.first + dn_h, fmaf(dn_h, h.of(b.a_h[place]), of_h.second)};
        of_x = {of_x.first + dn_x, fmaf(dn_x, x.of(b.a_x[place]), of_x.second)};
      }
    of_h = {sum_of_lanes(of_h.first), sum_of_lanes(of_h.second)};
    of_x = {sum_of_lanes(of_x.first), sum_of_lanes(of_x.second)};
    if (lane != 0) continue;
    b.sums_h.mean[row] = of_h.first * one;
    b.sums_h.scale[row] = of_h.second * one;
    b.sums_x.mean[row] = of_x.first * one;
    b.sums_x.scale[row] = of_x.second * one;
  }
}

}  // namespace

void mean_of_columns(const Device& device, const Sequence& at, const float* W_h, float* mean) {
  const int H = at.hidden();
  launch(device, mean_of_columns_kernel,
         {.grid = dim3(static_cast<unsigned>((H + kColumnsOfBlock - 1) / kColumnsOfBlock)),
          .block = dim3(kColumnsOfBlock, kRowsAtOnce),
          .shared_bytes = kColumnsOfBlock * kRowsAtOnce * sizeof(float)},
         4 * H, H, W_h, mean);
}

void pack_weights(const Device& device, const Sequence& at, int units, const float* W_h, const float* mean,
                  __nv_bfloat16* forward, __nv_bfloat16* backward) {
  const auto H = static_cast<std::size_t>(at.hidden());
  launch(device, pack_weights_kernel, for_elements(4 * H * H),
         CentredWeights{W_h, mean, at.units, at.hidden()}, units, forward, backward);
}

void sum_rows(const Device& device, const RowSums& rows) {
  const auto count = static_cast<std::size_t>(rows.steps) * static_cast<std::size_t>(rows.at.lanes());
  launch(device, sum_rows_kernel, for_elements(32 * count), rows);
}

}  // namespace lamina::cuda
