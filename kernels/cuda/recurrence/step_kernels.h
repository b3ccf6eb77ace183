// The pointwise work of one time step. Forward, with layer normalization:
//   moments of a_h = W_h h  ->  gates, c, and moments of c  ->  s, h
// and backward:
//   dz_o, and sums for LN(c)  ->  dL/dc, dz, and sums for both LNs of the gates  ->  da_h.
// The arrows need numbers of all G unit blocks. Where a rank does the pointwise work of all of them (or there
// is no LN) one kernel does a step, one thread block per lane; else three, with exchanges between them. Both
// call the same functions for a row of a block, so their bits are equal.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/recurrence/sequence.h"

namespace lamina::cuda {

/// Of the P blocks: gains and bias of the gates [P, 4, U], of LN(c) [P, U].
struct CellParameters {
  const float *gain_h = nullptr, *gain_x = nullptr, *bias = nullptr, *gain_c = nullptr, *bias_c = nullptr;
};

/// One LN's mean and scale for every lane and step, [S, D, R].
struct SavedNormals {
  float *mean = nullptr, *scale = nullptr;
};

/// Rows of h: unit u of block p of lane (d, r) is at values + d * group + p * block + r * row + u.
struct HiddenRows {
  float* values = nullptr;
  std::int64_t group = 0, block = 0, row = 0;

  __host__ __device__ float* at(int d, int p, int r) const {
    return values + d * group + p * block + r * row;
  }
};

/// What forward and backward steps share. With LN, a_h is [D, P, S, R, 4U]; without it that of one step,
/// [D, P, R, 4U], and a_x is the memory of `gates`.
struct StepArrays {
  Sequence at;
  int t = 0;
  CellParameters parameters;
  const std::int32_t* lengths = nullptr;  ///< [D, R]; null: all rows are valid
  const float *a_h = nullptr, *a_x = nullptr;
  float* gates = nullptr;  ///< [D, P, S, R, 4U]; backward: becomes dz
  float* c = nullptr;      ///< [D, P, S+1, R, U]
  float* s = nullptr;      ///< [D, P, S, R, U] tanh(LN(c)); backward: becomes dL/d(argument of the tanh)
  SavedNormals of_h, of_x, of_c;
};

struct StepForward {
  StepArrays arrays;
  HiddenRows h_before, h;  ///< may be the same
  /// bf16 operands, where rows of h are complete: h once more, in the same order as `h` but for its strides.
  __nv_bfloat16* rounded_h = nullptr;
  std::int64_t rounded_group = 0;
};

struct StepBackward {
  StepArrays arrays;
  const float* d_output = nullptr;  ///< [D, P, steps, R, U]
  int steps = 0;
  Leaves d_h;                 ///< from t+1 through W_h; column p * U + u
  float* d_h_held = nullptr;  ///< [D, P, R, U], past invalid steps; null where all rows are valid
  float* d_c = nullptr;       ///< [D, P, R, U], dL/dc from t+1, to t-1
  float* d_n_c = nullptr;     ///< [D, P, R, U], scratch
  float* da_h = nullptr;      ///< LN, [D, K, R, 4U]; null: rounded_da_h takes its place
  __nv_bfloat16* rounded_da_h = nullptr;
  SavedNormals sums_h, sums_x;  ///< LN, [S, D, R]: means of dn and of dn n
};

/// Whether run_step() serves.
inline bool is_whole(const Sequence& at) { return !at.normalized || at.blocks == at.all_blocks; }

void run_step(const Device& device, const StepForward& step);
void run_step(const Device& device, const StepBackward& step);

// In three parts, LN only. `partial`: [P, n, D, R], n numbers of each own block, that are exchanged into
// `all`: [G, n, D, R]; n is 4 between gates_backward() and normalization_backward(), else 2.
void measure_states(const Device& device, const StepForward& step, float* partial);
void update_cells(const Device& device, const StepForward& step, const float* all, float* partial);
void write_outputs(const Device& device, const StepForward& step, const float* all);

void output_backward(const Device& device, const StepBackward& step, float* partial);
void gates_backward(const Device& device, const StepBackward& step, const float* all, float* partial);
void normalization_backward(const Device& device, const StepBackward& step, const float* all);

}  // namespace lamina::cuda
