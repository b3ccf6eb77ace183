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
//
// Over a model axis the kernels of all ranks run at once, and members say everything to all ranks. What
// others say is then in a window of peer memory (peer_memory.h) that lies alike on all ranks.
#pragma once

#include <cuda_bf16.h>

#include <chrono>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/peer_memory.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "kernels/cuda/recurrence/sequence.h"
#include "kernels/cuda/recurrence/signals.h"
#include "kernels/cuda/recurrence/step_kernels.h"

namespace lamina::cuda {

/// How long a member waits for another one before it gives up, in nanoseconds, where ranks wait for each
/// other so long (0: as long as they do by default): less, so that who waited says for what before they give
/// up.
unsigned long long spin_limit_within(std::chrono::milliseconds deadline);

/// What both directions share. Rows of a team are the lanes d * R + r in order; `row` counts over all teams.
struct PersistentArrays {
  Sequence at;
  PersistentGrid grid;
  int steps = 0;
  CellParameters parameters;
  const std::int32_t* lengths = nullptr;  ///< [D, R]; null: all rows are valid
  const uint4* weights = nullptr;         ///< of each member of this rank, packed as fragments
  PeerWindows peers;
  // In this rank's window, and filled by all ranks.
  __nv_bfloat16* exchanged = nullptr;  ///< [2, rows, H] h forward, [2, rows, 4H] da_h backward
  unsigned* flags = nullptr;           ///< [teams, members]
  Word* gate_words = nullptr;          ///< LN: [2, rows, members]
  WordPair* cell_words = nullptr;      ///< LN: [2, rows, members]
  Stall* stall = nullptr;
  unsigned long long spin_limit = 0;  ///< spin_limit_within()

  // For the backward pass and the gradients, as in StepArrays.
  float* a_h = nullptr;    ///< LN: [D, P, S, R, 4U]
  float* gates = nullptr;  ///< [D, P, S, R, 4U]; backward: becomes dz
  float* c = nullptr;      ///< [D, P, S+1, R, U]
  float* s = nullptr;      ///< [D, P, S, R, U]; backward: becomes dL/d(argument of the tanh)
  SavedNormals of_h, of_c;
};

struct PersistentForward {
  PersistentArrays arrays;
  const float* a_x = nullptr;      ///< [D, P, S, R, 4U]; without LN the memory of the gates
  SavedNormals of_x;               ///< LN
  const float* h_first = nullptr;  ///< [D, R, H]
  // Of the units of this rank.
  float* output = nullptr;             ///< [D, steps, R, H]
  __nv_bfloat16* rounded_h = nullptr;  ///< [D, S+1, R, H], from its second step on; for the gradients
};

struct PersistentBackward {
  PersistentArrays arrays;
  const float* d_output = nullptr;  ///< [D, P, steps, R, U]
};

/// Their window must be zeros but for h before the first step, before any rank begins. `blocks`: for tests.
void run_persistent(const Device& device, const PersistentForward& forward, int blocks);
void run_persistent(const Device& device, const PersistentBackward& backward, int blocks);

/// Throws InternalError unless all blocks of both kernels can run at once on the device.
void check_residency(const PersistentPlan& plan, const cudaDeviceProp& device);

/// Throws InternalError that names the block of model rank `rank`, its step and what it waited for, if there
/// is one.
void check_no_stall(const Stall& stall, const PersistentGrid& grid, int rank, const char* direction);

/// What the members of a rank have of W_h - mean: forward the rows of their units, backward the columns.
struct MemberWeights {
  const float* rows = nullptr;       ///< [P, 4U, H]
  const float* columns = nullptr;    ///< [G, 4U, …], those of this rank
  std::int64_t row_of_columns = 0;   ///< elements from one row of them to the next
  const float* mean = nullptr;       ///< [H], or null
  int first_unit = 0;                ///< of this rank
  __nv_bfloat16* forward = nullptr;  ///< out: the fragments of all members, 4 H P U values each
  __nv_bfloat16* backward = nullptr;
};
void pack_weights(const Device& device, const Sequence& at, int units, const MemberWeights& weights);

/// The sums of dn and dn n of every row, for both LNs of the gates, from dz. Of invalid rows: zeros.
struct RowSums {
  Sequence at;
  int steps = 0;
  CellParameters parameters;
  const std::int32_t* lengths = nullptr;
  const float *dz = nullptr, *a_h = nullptr, *a_x = nullptr;  ///< [D, P, S, R, 4U]
  SavedNormals of_h, of_x;
  float *sums_h = nullptr, *sums_x = nullptr;  ///< out: of each block, [P, 2, S, D, R]
};
void sum_rows(const Device& device, const RowSums& rows);
/// Their means over the 4H gates, from the sums of all blocks [G, 2, S, D, R].
void merge_rows(const Device& device, const Sequence& at, int steps, const float* sums,
                const SavedNormals& means);

}  // namespace lamina::cuda
