// Pointwise work over whole sequences, before and after the time loop, and sums and copies between blocks.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/recurrence/step_kernels.h"

namespace lamina::cuda {

/// Moments of W_x x for every row of the first `steps` steps: partial [P, 2, S, D, R].
void measure_inputs(const Device& device, const Sequence& at, int steps, const float* a_x, float* partial);
/// LN's mean and scale from the numbers of all blocks, [G, 2, S, D, R].
void merge_inputs(const Device& device, const Sequence& at, int steps, const float* all,
                  const SavedNormals& of_x);

/// The gradients of what LN of the gates is made of, after the time loop.
struct FinishBackward {
  Sequence at;
  int steps = 0;
  const std::int32_t* lengths = nullptr;
  CellParameters parameters;
  const float* dz = nullptr;             ///< [D, P, S, R, 4U]
  float *a_h = nullptr, *a_x = nullptr;  ///< likewise; become da_h and da_x
  SavedNormals of_h, of_x, sums_h, sums_x;
};
/// Rows of a sequence whose sums one thread adds up.
inline constexpr int kRowsOfChunk = 64;
/// Of this rank's blocks. sums: [chunks of rows, 3, D, K, 4U], of dz n_h, dz n_x and dz.
void finish_gates(const Device& device, const FinishBackward& b, float* sums);
/// Without LN: sums [chunks, D, K, 4U] of dz.
void sum_gates(const Device& device, const Sequence& at, int steps, const float* dz, float* sums);
/// sums: [chunks, 2, D, K, U], of d_y n_c and d_y; d_y [D, P, S, R, U], c as in StepArrays.
void sum_cells(const Device& device, const Sequence& at, int steps, const float* d_y, const float* c,
               const SavedNormals& of_c, float* sums);
/// Chunks of rows of a sequence of `steps` steps.
inline int chunks_of(const Sequence& at, int steps) {
  return (steps * at.rows + kRowsOfChunk - 1) / kRowsOfChunk;
}
/// out [count] = the tree over lane groups of the sums over chunks; of group d and chunk i at
/// sums + i * chunk + d * count.
void sum_chunks(const Device& device, const float* sums, int chunks, std::int64_t chunk, int groups,
                std::int64_t count, float* out);

/// Blocks [ranks, D, K, rows, width] as they come from ranks, to where block p = rank * K + k of group d
/// begins at to + d * group + p * block, its rows `row` apart.
struct PlacedBlocks {
  float* to = nullptr;
  std::int64_t group = 0, block = 0, row = 0;
};
void place_blocks(const Device& device, const float* from, int ranks, int groups, int own_blocks, int rows,
                  int width, const PlacedBlocks& to);
/// The inverse for one rank: blocks [D, K, rows, width] packed from where they are.
void pack_blocks(const Device& device, const PlacedBlocks& from, int groups, int own_blocks, int rows,
                 int width, float* to);

/// Rows of `width` values [groups, blocks, rows] at `from`, less those of `centre` [width] unless it is null,
/// in bf16 to `to`; strides as in PlacedBlocks.
struct RoundedBlocks {
  __nv_bfloat16* to = nullptr;
  std::int64_t group = 0, block = 0, row = 0;
};
void round_blocks(const Device& device, const PlacedBlocks& from, int groups, int blocks, int rows, int width,
                  const RoundedBlocks& to, const float* centre = nullptr);

/// Sums of rows of `columns` values in tree order, cut into `ranks` shares of columns:
/// out [ranks, D, rows, columns / ranks], or with PlacedBlocks of width `width` blocks of columns.
void sum_leaves(const Device& device, const Leaves& leaves, int groups, int rows, int columns, int ranks,
                float* out);
void sum_leaves_to_blocks(const Device& device, const Leaves& leaves, int groups, int rows, int columns,
                          int width, const PlacedBlocks& out);

}  // namespace lamina::cuda
