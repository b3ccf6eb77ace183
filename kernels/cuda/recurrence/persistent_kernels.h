// All time steps of a layer in one kernel. Each member of a team (persistent_plan.h) keeps its slice of W_h
// and the cells of its units on chip; what the others need goes through global memory. Forward, per step:
//   h of all members -> W_h h -> sums of squares of all -> gates, c -> moments of c of all -> h
// and backward:
//   da_h of all members -> dL/dh -> sums for LN(c) of all -> dz -> sums for LN(W_h h) of all -> da_h.
// Without LN only the first arrow of each is left.
//
// W_h and what it multiplies are bfloat16, everything else is float. With LN, W_h is centred: each column's
// mean over the 4H rows is subtracted before rounding, so that the mean of W_h h is 0 and nobody exchanges
// it. What members say of a row is summed by all of them in the same order: all have the same bits.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "kernels/cuda/recurrence/sequence.h"
#include "kernels/cuda/recurrence/signals.h"
#include "kernels/cuda/recurrence/step_kernels.h"

namespace lamina::cuda {

/// How long a member waits for another one before it gives up, in nanoseconds.
inline constexpr unsigned long long kSpinLimit = 20'000'000'000;

/// What both directions share. Rows of a team are the lanes d * R + r in order; `row` counts over all teams.
struct PersistentArrays {
  Sequence at;
  PersistentGrid grid;
  int steps = 0;
  CellParameters parameters;
  const std::int32_t* lengths = nullptr;  ///< [D, R]; null: all rows are valid
  const uint4* weights = nullptr;         ///< of each member, packed as fragments
  __nv_bfloat16* exchanged = nullptr;     ///< [2, rows, H] h forward, [2, rows, 4H] da_h backward
  unsigned* flags = nullptr;              ///< [teams, members]
  Word* gate_words = nullptr;             ///< LN: [2, rows, members]
  WordPair* cell_words = nullptr;         ///< LN: [2, rows, members]
  Stall* stall = nullptr;
  unsigned long long spin_limit = kSpinLimit;

  // For the backward pass and the gradients, as in StepArrays.
  float* a_h = nullptr;    ///< LN: [D, P, S, R, 4U]
  float* gates = nullptr;  ///< [D, P, S, R, 4U]; backward: becomes dz
  float* c = nullptr;      ///< [D, P, S+1, R, U]
  float* s = nullptr;      ///< [D, P, S, R, U]; backward: becomes dL/d(argument of the tanh)
  SavedNormals of_h, of_c;
};

struct PersistentForward {
  PersistentArrays arrays;
  const float* a_x = nullptr;          ///< [D, P, S, R, 4U]; without LN the memory of the gates
  SavedNormals of_x;                   ///< LN
  const float* h_first = nullptr;      ///< [D, R, H]
  float* output = nullptr;             ///< [D, steps, R, H]
  __nv_bfloat16* rounded_h = nullptr;  ///< [D, S+1, R, H], from its second step on; for the gradients
};

struct PersistentBackward {
  PersistentArrays arrays;
  const float* d_output = nullptr;  ///< [D, P, steps, R, U]
};

/// `exchanged`, flags and words must be zeros but for h before the first step. `blocks` is for tests.
void run_persistent(const Device& device, const PersistentForward& forward, int blocks);
void run_persistent(const Device& device, const PersistentBackward& backward, int blocks);

/// Throws InternalError unless all blocks of both kernels can run at once on the device.
void check_residency(const PersistentPlan& plan, const cudaDeviceProp& device);

/// Throws InternalError that names the block, its step and what it waited for, if there is one.
void check_no_stall(const Stall& stall, const PersistentGrid& grid, const char* direction);

/// mean [H] of the columns of W_h [P, 4U, H].
void mean_of_columns(const Device& device, const Sequence& at, const float* W_h, float* mean);
/// The fragments of all members, from W_h - mean; `mean` may be null. Each of `forward` and `backward`: 4 H^2
/// values.
void pack_weights(const Device& device, const Sequence& at, int units, const float* W_h, const float* mean,
                  __nv_bfloat16* forward, __nv_bfloat16* backward);

/// The means of dn and dn n of every row, for both LNs of the gates, from dz. Of invalid rows: zeros.
struct RowSums {
  Sequence at;
  int steps = 0;
  CellParameters parameters;
  const std::int32_t* lengths = nullptr;
  const float *dz = nullptr, *a_h = nullptr, *a_x = nullptr;  ///< [D, P, S, R, 4U]
  SavedNormals of_h, of_x;
  SavedNormals sums_h, sums_x;  ///< out
};
void sum_rows(const Device& device, const RowSums& rows);

}  // namespace lamina::cuda
