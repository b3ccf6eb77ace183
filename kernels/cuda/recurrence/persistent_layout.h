// What lies where in a member's shared memory; offsets in bytes, for the host to reserve and for kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/recurrence/persistent_plan.h"

namespace lamina::cuda {

/// Hands out room, aligned to 16 bytes.
class RoomCounter {
 public:
  template <class T>
  __host__ __device__ std::size_t take(int count) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return at;
  }
  __host__ __device__ std::size_t used() const { return used_; }

 private:
  std::size_t used_ = 0;
};

/// Columns of a warp's share of a product, padded against bank conflicts.
__host__ __device__ constexpr int partial_row(int columns) { return columns + 8; }

/// Sizes in elements; rows are those of the team, `units` those of the member.
struct ForwardLayout {
  std::size_t weights, partial;  ///< bf16 [H, 4 units] as fragments; float [warps, rows at a time, …]
  std::size_t a_h, x_term;       ///< [rows, 4 units] W_h h; gain_x n_x + bias
  std::size_t c, h;              ///< [rows, units]
  std::size_t gain_h, gain_x, bias, gain_c, bias_c;
  std::size_t scale_h, of_c;    ///< [rows]; [rows] mean and scale
  std::size_t lengths, places;  ///< [rows] int; [rows] group and row, two ints
  std::size_t bytes;

  __host__ __device__ ForwardLayout(const PersistentGrid& grid, int hidden) {
    const int units = grid.units, gates = 4 * units, rows = grid.rows;
    RoomCounter room;
    weights = room.take<unsigned short>(hidden * gates);
    partial = room.take<float>(kPersistentWarps * kTileRows * grid.row_tiles * partial_row(gates));
    a_h = room.take<float>(rows * gates);
    x_term = room.take<float>(rows * gates);
    c = room.take<float>(rows * units);
    h = room.take<float>(rows * units);
    gain_h = room.take<float>(gates);
    gain_x = room.take<float>(gates);
    bias = room.take<float>(gates);
    gain_c = room.take<float>(units);
    bias_c = room.take<float>(units);
    scale_h = room.take<float>(rows);
    of_c = room.take<float>(2 * rows);
    lengths = room.take<int>(rows);
    places = room.take<int>(2 * rows);
    bytes = room.used();
  }
};

struct BackwardLayout {
  std::size_t weights, partial;       ///< bf16 [4H, units] as fragments; float [warps, rows at a time, …]
  std::size_t gates, n_h;             ///< [rows, 4 units]: the gates, then dz; LN(W_h h) before its gain
  std::size_t s, n_c, c_before, d_h;  ///< [rows, units]: n_c is LN(c) before its gain
  std::size_t d_n_c, d_c, d_h_held;   ///< [rows, units]
  std::size_t gain_h, gain_c;
  std::size_t scale_h, scale_c;  ///< [rows]
  std::size_t means_c, mean_h;   ///< [rows] of dn and dn n over c; of dn n over the gates
  std::size_t lengths, places;   ///< [rows] int; [rows] group and row, two ints
  std::size_t bytes;

  __host__ __device__ BackwardLayout(const PersistentGrid& grid, int hidden) {
    const int units = grid.units, four = 4 * units, rows = grid.rows;
    RoomCounter room;
    weights = room.take<unsigned short>(hidden * four);
    partial = room.take<float>(kPersistentWarps * kTileRows * grid.row_tiles * partial_row(units));
    gates = room.take<float>(rows * four);
    n_h = room.take<float>(rows * four);
    s = room.take<float>(rows * units);
    n_c = room.take<float>(rows * units);
    c_before = room.take<float>(rows * units);
    d_h = room.take<float>(rows * units);
    d_n_c = room.take<float>(rows * units);
    d_c = room.take<float>(rows * units);
    d_h_held = room.take<float>(rows * units);
    gain_h = room.take<float>(four);
    gain_c = room.take<float>(units);
    scale_h = room.take<float>(rows);
    scale_c = room.take<float>(rows);
    means_c = room.take<float>(2 * rows);
    mean_h = room.take<float>(rows);
    lengths = room.take<int>(rows);
    places = room.take<int>(2 * rows);
    bytes = room.used();
  }
};

}  // namespace lamina::cuda
