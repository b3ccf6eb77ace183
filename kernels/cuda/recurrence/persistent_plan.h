// Whether one GPU, or those of a model axis together, can run all time steps of a layer in one kernel, and
// how it would be cut.
//
// The thread blocks form *teams*. A team has all of W_h on chip, each of its *members* (one thread block, one
// multiprocessor) the weights of some units with all four gates; and it has lanes of its own, so teams never
// wait for each other. The members of a team are spread over the model ranks, each on the rank that has its
// units.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>

#include "runtime/backend.h"

namespace lamina::cuda {

/// Threads of a member.
inline constexpr int kPersistentThreads = 256;
inline constexpr int kPersistentWarps = kPersistentThreads / 32;
/// Rows that one matrix instruction takes.
inline constexpr int kTileRows = 16;
/// Values of k that a warp multiplies at a time; H must divide by it.
inline constexpr int kTileDepth = 32;
/// Words of one row that a lane reads; with 32 lanes, so many members. A GPU alone has room for fewer.
inline constexpr int kUsualWordsOfLane = 5, kMostWordsOfLane = 8;
inline constexpr int kMostMembers = 32 * kMostWordsOfLane;

/// Tiles of 16 rows that members with so many units can sum up at a time in registers.
__host__ __device__ constexpr int most_row_tiles(int units) { return 32 / units; }

struct PersistentGrid {
  int units = 0;    ///< of a member: 8, 16 or 32
  int members = 0;  ///< of a team: H / units
  int ranks = 1;    ///< of the model axis, on which they are
  int teams = 0;
  int rows = 0;       ///< of a team: lanes, padded to tiles; the last team may have fewer
  int row_tiles = 0;  ///< that are multiplied at a time

  __host__ __device__ int own_members() const { return members / ranks; }   ///< of a team on this rank
  __host__ __device__ int blocks() const { return teams * own_members(); }  ///< of this rank
  __host__ __device__ int all_rows() const { return teams * rows; }
  friend bool operator==(const PersistentGrid&, const PersistentGrid&) = default;
};

struct PersistentPlan {
  PersistentGrid grid;
  std::size_t forward_bytes = 0, backward_bytes = 0;  ///< of a member's shared memory
  std::string why_not;                                ///< a clause; empty: it fits

  bool fits() const { return why_not.empty(); }
};

/// As few lanes in a team as can be; of cuts with equally few, the one with the fewest units on a member. As
/// the units of a member are part of the result, they are those of the shortest model axis on which the layer
/// fits with the whole batch, or else with half of it, a quarter, …, down to one lane group: on any grid, and
/// in any passes. Needs no GPU.
PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device);
/// The same with so many units of a member.
PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device, int units);

}  // namespace lamina::cuda
