#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/recurrence/row_sums.cuh"
#include "kernels/cuda/recurrence/sequence_kernels.h"
#include "kernels/cuda/tree.cuh"

namespace lamina::cuda {
namespace {

constexpr int kThreads = 256;

__device__ std::int64_t first_index() { return static_cast<std::int64_t>(first_element()); }
__device__ std::int64_t index_stride() { return static_cast<std::int64_t>(element_stride()); }

// --- moments of the input side ----------------------------------------------------------------------------

__global__ void measure_inputs_kernel(Sequence at, int steps, const float* a_x, float* partial) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t rows = static_cast<std::int64_t>(steps) * at.lanes();
  const std::int64_t all_rows = static_cast<std::int64_t>(at.max_steps) * at.lanes();
  for (std::size_t item = first_row(); item < static_cast<std::size_t>(at.blocks * rows);
       item += row_stride()) {
    const auto i = static_cast<std::int64_t>(item);
    const int p = static_cast<int>(i / rows), t = static_cast<int>(i % rows / at.lanes());
    const int d = static_cast<int>(i % at.lanes()) / at.rows, r = static_cast<int>(i % at.rows);
    const RowPair moments = row_moments(a_x + at.gates(d, p, t, r), 4 * at.units, lane);
    if (lane != 0) continue;
    float* first = partial + 2 * p * all_rows + at.statistics(d, t, r);
    first[0] = moments.first;
    first[all_rows] = moments.second;
  }
}

__global__ void merge_inputs_kernel(Sequence at, int steps, const float* all, SavedNormals of_x) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t rows = static_cast<std::int64_t>(steps) * at.lanes();
  const std::int64_t all_rows = static_cast<std::int64_t>(at.max_steps) * at.lanes();
  for (std::size_t item = first_row(); item < static_cast<std::size_t>(rows); item += row_stride()) {
    const auto i = static_cast<std::int64_t>(item);
    const Normal normal =
        merge_moments(at.all_blocks, 4 * at.units, at.epsilon, lane, [&](int block) -> RowPair {
          const float* first = all + 2 * block * all_rows + i;
          return {first[0], first[all_rows]};
        });
    if (lane != 0) continue;
    of_x.mean[i] = normal.mean;
    of_x.scale[i] = normal.scale;
  }
}

// --- sums over the rows of a sequence ---------------------------------------------------------------------

/// A column of a chunk of rows: column j of block k of group d.
struct ChunkColumn {
  int chunk, d, k, j;
  std::int64_t place;  ///< in [D, K, width]

  __device__ ChunkColumn(const Sequence& at, int width)
      : chunk(static_cast<int>(blockIdx.y)), place(first_index()) {
    j = static_cast<int>(place % width);
    k = static_cast<int>(place / width % at.own_blocks);
    d = static_cast<int>(place / width / at.own_blocks);
  }
  /// use(t, r) for the rows of the chunk.
  template <class Use>
  __device__ void for_rows(const Sequence& at, int steps, const Use& use) const {
    const int first = chunk * kRowsOfChunk, rows = steps * at.rows;
    const int end = first + kRowsOfChunk < rows ? first + kRowsOfChunk : rows;
    for (int row = first; row < end; ++row) use(row / at.rows, row % at.rows);
  }
};

__device__ std::int64_t columns_of(const Sequence& at, int width) {
  return static_cast<std::int64_t>(at.groups) * at.own_blocks * width;
}

__global__ void finish_gates_kernel(FinishBackward b, float* sums) {
  const Sequence& at = b.at;
  const int width = 4 * at.units;
  const ChunkColumn column(at, width);
  const std::int64_t columns = columns_of(at, width);
  if (column.place >= columns) return;
  const int p = at.own_first + column.k;
  const float gain_h = b.parameters.gain_h[p * width + column.j],
              gain_x = b.parameters.gain_x[p * width + column.j];
  float of_h = 0, of_x = 0, of_z = 0;
  column.for_rows(at, b.steps, [&](int t, int r) {
    const std::int64_t i = at.gates(column.d, p, t, r) + column.j, row = at.statistics(column.d, t, r);
    if (b.lengths != nullptr && t >= b.lengths[at.lane(column.d, r)]) {
      b.a_h[i] = b.a_x[i] = 0;
      return;
    }
    const Normal h{b.of_h.mean[row], b.of_h.scale[row]}, x{b.of_x.mean[row], b.of_x.scale[row]};
    const float dz = b.dz[i], n_h = h.of(b.a_h[i]), n_x = x.of(b.a_x[i]);
    of_h = fmaf(dz, n_h, of_h);
    of_x = fmaf(dz, n_x, of_x);
    of_z = of_z + dz;
    b.a_h[i] = normalization_gradient(h, n_h, gain_h * dz, b.sums_h.mean[row], b.sums_h.scale[row]);
    b.a_x[i] = normalization_gradient(x, n_x, gain_x * dz, b.sums_x.mean[row], b.sums_x.scale[row]);
  });
  float* out = sums + 3 * columns * column.chunk + column.place;
  out[0] = of_h;
  out[columns] = of_x;
  out[2 * columns] = of_z;
}

__global__ void sum_gates_kernel(Sequence at, int steps, const float* dz, float* sums) {
  const int width = 4 * at.units;
  const ChunkColumn column(at, width);
  const std::int64_t columns = columns_of(at, width);
  if (column.place >= columns) return;
  float sum = 0;
  column.for_rows(at, steps, [&](int t, int r) {
    sum = sum + dz[at.gates(column.d, at.own_first + column.k, t, r) + column.j];
  });
  sums[columns * column.chunk + column.place] = sum;
}

__global__ void sum_cells_kernel(Sequence at, int steps, const float* d_y, const float* c, SavedNormals of_c,
                                 float* sums) {
  const ChunkColumn column(at, at.units);
  const std::int64_t columns = columns_of(at, at.units);
  if (column.place >= columns) return;
  const int p = at.own_first + column.k;
  float of_n = 0, of_y = 0;
  column.for_rows(at, steps, [&](int t, int r) {
    const std::int64_t row = at.statistics(column.d, t, r);
    const float d = d_y[at.cell(column.d, p, t, r) + column.j];
    const Normal normal{of_c.mean[row], of_c.scale[row]};
    of_n = fmaf(d, normal.of(c[at.state(column.d, p, t + 1, r) + column.j]), of_n);
    of_y = of_y + d;
  });
  float* out = sums + 2 * columns * column.chunk + column.place;
  out[0] = of_n;
  out[columns] = of_y;
}

LaunchShape for_columns(const Sequence& at, int steps, int width) {
  const std::int64_t columns = static_cast<std::int64_t>(at.groups) * at.own_blocks * width;
  return {.grid = dim3(static_cast<unsigned>((columns + kThreads - 1) / kThreads),
                       static_cast<unsigned>(chunks_of(at, steps))),
          .block = dim3(kThreads)};
}

__global__ void sum_chunks_kernel(const float* sums, int chunks, std::int64_t chunk, int groups,
                                  std::int64_t count, float* out) {
  for (std::int64_t i = first_index(); i < count; i += index_stride())
    out[i] = tree_sum(groups, [&](int d) {
      float sum = 0;
      for (int n = 0; n < chunks; ++n) sum = sum + sums[n * chunk + d * count + i];
      return sum;
    });
}

// --- between blocks ---------------------------------------------------------------------------------------

__global__ void place_blocks_kernel(const float* from, std::int64_t count, int groups, int own_blocks,
                                    int rows, int width, PlacedBlocks to) {
  for (std::int64_t i = first_index(); i < count; i += index_stride()) {
    const std::int64_t tile = i / width / rows, row = i / width % rows;
    const std::int64_t k = tile % own_blocks, d = tile / own_blocks % groups,
                       rank = tile / own_blocks / groups;
    to.to[d * to.group + (rank * own_blocks + k) * to.block + row * to.row + i % width] = from[i];
  }
}

__global__ void pack_blocks_kernel(PlacedBlocks from, std::int64_t count, int own_blocks, int rows, int width,
                                   float* to) {
  for (std::int64_t i = first_index(); i < count; i += index_stride()) {
    const std::int64_t tile = i / width / rows, row = i / width % rows;
    const std::int64_t k = tile % own_blocks, d = tile / own_blocks;
    to[i] = from.to[d * from.group + k * from.block + row * from.row + i % width];
  }
}

__global__ void round_blocks_kernel(PlacedBlocks from, std::int64_t count, int blocks, int rows, int width,
                                    RoundedBlocks to, const float* centre) {
  for (std::int64_t i = first_index(); i < count; i += index_stride()) {
    const std::int64_t tile = i / width / rows, row = i / width % rows, j = i % width;
    const std::int64_t k = tile % blocks, d = tile / blocks;
    const float value = from.to[d * from.group + k * from.block + row * from.row + j];
    to.to[d * to.group + k * to.block + row * to.row + j] =
        __float2bfloat16(centre == nullptr ? value : value - centre[j]);
  }
}

__global__ void sum_leaves_kernel(Leaves leaves, std::int64_t count, int groups, int rows, int columns,
                                  int ranks, float* out) {
  const int share = columns / ranks;
  for (std::int64_t i = first_index(); i < count; i += index_stride()) {
    const std::int64_t lane = i / share, rank = lane / rows / groups;
    const float* first = leaves.at(static_cast<int>(lane / rows % groups), static_cast<int>(lane % rows)) +
                         rank * share + i % share;
    out[i] = tree_sum(leaves.count, [&](int leaf) { return first[leaf * leaves.leaf]; });
  }
}

__global__ void sum_leaves_to_blocks_kernel(Leaves leaves, std::int64_t count, int rows, int columns,
                                            int width, PlacedBlocks out) {
  for (std::int64_t i = first_index(); i < count; i += index_stride()) {
    const int column = static_cast<int>(i % columns), lane = static_cast<int>(i / columns);
    const int d = lane / rows, r = lane % rows;
    const float* first = leaves.at(d, r) + column;
    out.to[d * out.group + column / width * out.block + r * out.row + column % width] =
        tree_sum(leaves.count, [&](int leaf) { return first[leaf * leaves.leaf]; });
  }
}

std::int64_t product(int a, int b, int c, int d = 1, int e = 1) {
  return static_cast<std::int64_t>(a) * b * c * d * e;
}
LaunchShape for_count(std::int64_t count) { return for_elements(static_cast<std::size_t>(count)); }

}  // namespace

void measure_inputs(const Device& device, const Sequence& at, int steps, const float* a_x, float* partial) {
  launch(device, measure_inputs_kernel,
         for_rows(static_cast<std::size_t>(product(at.blocks, steps, at.lanes()))), at, steps, a_x, partial);
}

void merge_inputs(const Device& device, const Sequence& at, int steps, const float* all,
                  const SavedNormals& of_x) {
  launch(device, merge_inputs_kernel, for_rows(static_cast<std::size_t>(product(steps, at.lanes(), 1))), at,
         steps, all, of_x);
}

void finish_gates(const Device& device, const FinishBackward& b, float* sums) {
  launch(device, finish_gates_kernel, for_columns(b.at, b.steps, 4 * b.at.units), b, sums);
}

void sum_gates(const Device& device, const Sequence& at, int steps, const float* dz, float* sums) {
  launch(device, sum_gates_kernel, for_columns(at, steps, 4 * at.units), at, steps, dz, sums);
}

void sum_cells(const Device& device, const Sequence& at, int steps, const float* d_y, const float* c,
               const SavedNormals& of_c, float* sums) {
  launch(device, sum_cells_kernel, for_columns(at, steps, at.units), at, steps, d_y, c, of_c, sums);
}

void sum_chunks(const Device& device, const float* sums, int chunks, std::int64_t chunk, int groups,
                std::int64_t count, float* out) {
  launch(device, sum_chunks_kernel, for_count(count), sums, chunks, chunk, groups, count, out);
}

void place_blocks(const Device& device, const float* from, int ranks, int groups, int own_blocks, int rows,
                  int width, const PlacedBlocks& to) {
  const std::int64_t count = product(ranks, groups, own_blocks, rows, width);
  launch(device, place_blocks_kernel, for_count(count), from, count, groups, own_blocks, rows, width, to);
}

void pack_blocks(const Device& device, const PlacedBlocks& from, int groups, int own_blocks, int rows,
                 int width, float* to) {
  const std::int64_t count = product(groups, own_blocks, rows, width);
  launch(device, pack_blocks_kernel, for_count(count), from, count, own_blocks, rows, width, to);
}

void round_blocks(const Device& device, const PlacedBlocks& from, int groups, int blocks, int rows, int width,
                  const RoundedBlocks& to, const float* centre) {
  const std::int64_t count = product(groups, blocks, rows, width);
  launch(device, round_blocks_kernel, for_count(count), from, count, blocks, rows, width, to, centre);
}

void sum_leaves(const Device& device, const Leaves& leaves, int groups, int rows, int columns, int ranks,
                float* out) {
  const std::int64_t count = product(groups, rows, columns);
  launch(device, sum_leaves_kernel, for_count(count), leaves, count, groups, rows, columns, ranks, out);
}

void sum_leaves_to_blocks(const Device& device, const Leaves& leaves, int groups, int rows, int columns,
                          int width, const PlacedBlocks& out) {
  const std::int64_t count = product(groups, rows, columns);
  launch(device, sum_leaves_to_blocks_kernel, for_count(count), leaves, count, rows, columns, width, out);
}

}  // namespace lamina::cuda
