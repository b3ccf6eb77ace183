// Where the values of a sequence lie in device memory; for kernels and for the host that starts them.
//
// Legend of shapes: runtime/backend.h, and P unit blocks of the pointwise work (K of this rank, or all G with
// the replicated schedule). Arrays have room for S = max_time_steps, so that their strides never change.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lamina::cuda {

struct Sequence {
  int groups = 0, rows = 0, units = 0;  ///< D, R, U
  int blocks = 0;                       ///< P
  int own_blocks = 0, own_first = 0;    ///< K, and which of the P blocks is the first of them
  int all_blocks = 0;                   ///< G
  int max_steps = 0;                    ///< S
  bool normalized = false;
  float epsilon = 0;

  __host__ __device__ int hidden() const { return all_blocks * units; }
  __host__ __device__ int lanes() const { return groups * rows; }
  /// Row r of tile (d, p) at step t of gates [D, P, S, R, 4U], of cells [D, P, S, R, U], and of cell states
  /// [D, P, S+1, R, U], where t = 0 is before the first step.
  __host__ __device__ std::int64_t gates(int d, int p, int t, int r = 0) const {
    return row(d, p, max_steps, t, r) * 4 * units;
  }
  __host__ __device__ std::int64_t cell(int d, int p, int t, int r = 0) const {
    return row(d, p, max_steps, t, r) * units;
  }
  __host__ __device__ std::int64_t state(int d, int p, int t, int r = 0) const {
    return row(d, p, max_steps + 1, t, r) * units;
  }
  /// Row r of tile (d, p) of one step, [D, P, R, width].
  __host__ __device__ std::int64_t tile(int d, int p, int r, int width) const {
    return row(d, p, 1, 0, r) * width;
  }
  /// The place in statistics [S, D, R].
  __host__ __device__ std::int64_t statistics(int d, int t, int r) const {
    return (static_cast<std::int64_t>(t) * groups + d) * rows + r;
  }
  __host__ __device__ int lane(int d, int r) const { return d * rows + r; }

 private:
  __host__ __device__ std::int64_t row(int d, int p, int steps, int t, int r) const {
    return ((static_cast<std::int64_t>(d) * blocks + p) * steps + t) * rows + r;
  }
};

/// What sums of rows over blocks or ranks are made of: leaf i of lane (d, r) begins at
/// values + i * leaf + d * group + r * row. A count of 0 is a sum of 0.
struct Leaves {
  const float* values = nullptr;
  int count = 0;
  std::int64_t leaf = 0, group = 0, row = 0;

  __host__ __device__ const float* at(int d, int r) const { return values + d * group + r * row; }
};

}  // namespace lamina::cuda
