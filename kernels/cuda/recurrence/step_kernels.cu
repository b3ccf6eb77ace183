// One thread block for each lane, a warp for a unit block at a time.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence/row_sums.cuh"
#include "kernels/cuda/recurrence/step_kernels.h"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/tree.cuh"

namespace lamina::cuda {
namespace {

constexpr int kMostWarps = 16;

/// Which row this warp is at.
struct Row {
  int d, r, lane, warp, warps;

  __device__ Row()
      : d(static_cast<int>(blockIdx.y)),
        r(static_cast<int>(blockIdx.x)),
        lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        warps(static_cast<int>(blockDim.x) / 32) {}

  __device__ bool is_valid(const StepArrays& a) const {
    return a.lengths == nullptr || a.t < a.lengths[a.at.lane(d, r)];
  }
  __device__ std::int64_t statistics(const StepArrays& a) const { return a.at.statistics(d, a.t, r); }
  __device__ Normal saved(const StepArrays& a, const SavedNormals& of) const {
    return {of.mean[statistics(a)], of.scale[statistics(a)]};
  }
  __device__ void save(const StepArrays& a, const SavedNormals& of, float mean, float scale) const {
    if (threadIdx.x != 0) return;
    of.mean[statistics(a)] = mean;
    of.scale[statistics(a)] = scale;
  }
  /// task(p) for the blocks of this warp.
  template <class Task>
  __device__ void for_blocks(const StepArrays& a, const Task& task) const {
    for (int p = warp; p < a.at.blocks; p += warps) task(p);
  }
  /// task(u) for the units of this thread.
  template <class Task>
  __device__ void for_units(int units, const Task& task) const {
    for (int u = lane; u < units; u += 32) task(u);
  }
};

/// Numbers n of unit blocks for this row, in arrays [blocks, count, D, R] in global memory.
struct Numbers {
  int count, first;

  __device__ float* at(float* numbers, const StepArrays& a, const Row& row, int block) const {
    const int lanes = a.at.lanes();
    return numbers + (static_cast<std::int64_t>(block) * count + first) * lanes + a.at.lane(row.d, row.r);
  }
  __device__ RowPair load(const float* numbers, const StepArrays& a, const Row& row, int block) const {
    const float* first_one = at(const_cast<float*>(numbers), a, row, block);
    return {first_one[0], first_one[a.at.lanes()]};
  }
  __device__ void store(float* numbers, const StepArrays& a, const Row& row, int block, RowPair pair) const {
    if (row.lane != 0) return;
    float* first_one = at(numbers, a, row, block);
    first_one[0] = pair.first;
    first_one[a.at.lanes()] = pair.second;
  }
};

__device__ constexpr Numbers two() { return {2, 0}; }

__device__ const float* a_h_of(const StepArrays& a, const Row& row, int p) {
  return a.a_h +
         (a.at.normalized ? a.at.gates(row.d, p, a.t, row.r) : a.at.tile(row.d, p, row.r, 4 * a.at.units));
}

// --- forward, one row of one block ------------------------------------------------------------------------

// Returns the moments of c with LN.
__device__ RowPair update_cell(const StepArrays& a, const Row& row, int p, const Normal& of_h,
                               const Normal& of_x) {
  const int U = a.at.units;
  const float* c_before = a.c + a.at.state(row.d, p, a.t, row.r);
  float* c = a.c + a.at.state(row.d, p, a.t + 1, row.r);
  const float *a_h = a_h_of(a, row, p), *a_x = a.a_x + a.at.gates(row.d, p, a.t, row.r);
  float* gates = a.gates + a.at.gates(row.d, p, a.t, row.r);
  const CellParameters& w = a.parameters;
  const bool valid = row.is_valid(a);
  row.for_units(U, [&](int u) {
    if (!valid) {
      c[u] = c_before[u];
      return;
    }
    const auto z = [&](int gate) {
      const int j = gate * U + u, i = p * 4 * U + j;
      if (!a.at.normalized) return a_h[j] + (a_x[j] + w.bias[i]);
      return gate_input(of_h, a_h[j], w.gain_h[i], of_x, a_x[j], w.gain_x[i], w.bias[i]);
    };
    const Gates y = Gates::of(z(0), z(1), z(2), z(3));
    gates[u] = y.f;
    gates[U + u] = y.i;
    gates[2 * U + u] = y.o;
    gates[3 * U + u] = y.g;
    c[u] = y.cell(c_before[u]);
  });
  return a.at.normalized ? row_moments(c, U, row.lane) : RowPair{};
}

__device__ void write_output(const StepForward& f, const Row& row, int p, const Normal& of_c) {
  const StepArrays& a = f.arrays;
  const int U = a.at.units;
  const float* before = f.h_before.at(row.d, p, row.r);
  float* h = f.h.at(row.d, p, row.r);
  const float* c = a.c + a.at.state(row.d, p, a.t + 1, row.r);
  const float* o = a.gates + a.at.gates(row.d, p, a.t, row.r) + 2 * U;
  float* s = a.s + a.at.cell(row.d, p, a.t, row.r);
  __nv_bfloat16* rounded = f.rounded_h == nullptr
                               ? nullptr
                               : f.rounded_h + row.d * f.rounded_group + p * f.h.block + row.r * f.h.row;
  const bool valid = row.is_valid(a);
  row.for_units(U, [&](int u) {
    if (valid) {
      const int i = p * U + u;
      s[u] =
          tanhf(a.at.normalized ? fmaf(a.parameters.gain_c[i], of_c.of(c[u]), a.parameters.bias_c[i]) : c[u]);
      h[u] = o[u] * s[u];
    } else {
      h[u] = before[u];
    }
    if (rounded != nullptr) rounded[u] = __float2bfloat16(h[u]);
  });
}

// --- backward, one row of one block -----------------------------------------------------------------------

// Returns the sums for LN(c) with LN.
__device__ RowPair output_backward(const StepBackward& b, const Row& row, int p, const Normal& of_c) {
  const StepArrays& a = b.arrays;
  const int U = a.at.units;
  const std::int64_t step =
      ((static_cast<std::int64_t>(row.d) * a.at.blocks + p) * b.steps + a.t) * a.at.rows + row.r;
  const float* d_output = b.d_output + step * U;
  const float* leaves = b.d_h.at(row.d, row.r) + p * U;
  const std::int64_t tile = a.at.tile(row.d, p, row.r, U);
  const float* c = a.c + a.at.state(row.d, p, a.t + 1, row.r);
  float* gate_o = a.gates + a.at.gates(row.d, p, a.t, row.r) + 2 * U;
  float* s = a.s + a.at.cell(row.d, p, a.t, row.r);
  const bool valid = row.is_valid(a);
  RowPair sums;
  row.for_units(U, [&](int u) {
    const float later = tree_sum(b.d_h.count, [&](int i) { return leaves[i * b.d_h.leaf + u]; });
    float d_h = d_output[u] + later;
    if (!valid) {
      b.d_h_held[tile + u] += d_h;
      b.d_n_c[tile + u] = s[u] = 0;
      return;
    }
    if (b.d_h_held != nullptr) {
      d_h += b.d_h_held[tile + u];
      b.d_h_held[tile + u] = 0;
    }
    const OutputGradient d(d_h, s[u], gate_o[u]);
    gate_o[u] = d.dz_o;
    s[u] = d.d_y;
    if (!a.at.normalized) {
      b.d_n_c[tile + u] = d.d_y;
      return;
    }
    const float d_n = a.parameters.gain_c[p * U + u] * d.d_y;
    b.d_n_c[tile + u] = d_n;
    sums.first = sums.first + d_n;
    sums.second = fmaf(d_n, of_c.of(c[u]), sums.second);
  });
  return a.at.normalized ? RowPair{sum_of_lanes(sums.first), sum_of_lanes(sums.second)} : RowPair{};
}

/// The sums for the LNs of W_h h and W_x x.
struct GateSums {
  RowPair h, x;
};

__device__ GateSums gates_backward(const StepBackward& b, const Row& row, int p, const Normal& of_c,
                                   RowPair means_c, const Normal& of_h, const Normal& of_x) {
  const StepArrays& a = b.arrays;
  const int U = a.at.units;
  const std::int64_t tile = a.at.tile(row.d, p, row.r, U);
  const float* c_before = a.c + a.at.state(row.d, p, a.t, row.r);
  const float* c = a.c + a.at.state(row.d, p, a.t + 1, row.r);
  const float *a_h = a_h_of(a, row, p), *a_x = a.a_x + a.at.gates(row.d, p, a.t, row.r);
  float* gates = a.gates + a.at.gates(row.d, p, a.t, row.r);
  const bool valid = row.is_valid(a);
  GateSums sums;
  row.for_units(U, [&](int u) {
    if (!valid) {
      for (int gate = 0; gate < 4; ++gate) gates[gate * U + u] = 0;
      return;
    }
    const float from_output = b.d_n_c[tile + u], from_later = b.d_c[tile + u];
    const float d_c = a.at.normalized ? from_later + normalization_gradient(of_c, of_c.of(c[u]), from_output,
                                                                            means_c.first, means_c.second)
                                      : from_later + from_output;
    const Gates y{gates[u], gates[U + u], 0, gates[3 * U + u]};
    b.d_c[tile + u] = d_c * y.f;
    const GateGradients dz(d_c, c_before[u], y);
    gates[u] = dz.f;
    gates[U + u] = dz.i;
    gates[3 * U + u] = dz.g;
    if (!a.at.normalized) return;
    const auto add = [&](RowPair& sum, float d_n, float n) {
      sum.first = sum.first + d_n;
      sum.second = fmaf(d_n, n, sum.second);
    };
    for (int gate = 0; gate < 4; ++gate) {
      const int j = gate * U + u, i = p * 4 * U + j;
      add(sums.h, a.parameters.gain_h[i] * gates[j], of_h.of(a_h[j]));
      add(sums.x, a.parameters.gain_x[i] * gates[j], of_x.of(a_x[j]));
    }
  });
  if (!a.at.normalized) return {};
  return {{sum_of_lanes(sums.h.first), sum_of_lanes(sums.h.second)},
          {sum_of_lanes(sums.x.first), sum_of_lanes(sums.x.second)}};
}

__device__ void normalization_backward(const StepBackward& b, const Row& row, int p, const Normal& of_h,
                                       RowPair means) {
  const StepArrays& a = b.arrays;
  const int U = a.at.units, k = p - a.at.own_first;
  if (k < 0 || k >= a.at.own_blocks) return;
  const float *a_h = a_h_of(a, row, p), *dz = a.gates + a.at.gates(row.d, p, a.t, row.r);
  const std::int64_t first =
      ((static_cast<std::int64_t>(row.d) * a.at.own_blocks + k) * a.at.rows + row.r) * 4 * U;
  const bool valid = row.is_valid(a);
  row.for_units(4 * U, [&](int j) {
    const float d_n = a.parameters.gain_h[p * 4 * U + j] * dz[j];
    const float da =
        valid ? normalization_gradient(of_h, of_h.of(a_h[j]), d_n, means.first, means.second) : 0;
    if (b.da_h != nullptr)
      b.da_h[first + j] = da;
    else
      b.rounded_da_h[first + j] = __float2bfloat16(da);
  });
}

// --- a step in one kernel ---------------------------------------------------------------------------------

__global__ void forward_step(StepForward f) {
  const StepArrays& a = f.arrays;
  const Row row;
  const int P = a.at.blocks, width = 4 * a.at.units;
  RowPair *of_states = shared_memory<RowPair>(), *of_cells = of_states + P;
  Normal of_h, of_x, of_c;
  if (a.at.normalized) {
    row.for_blocks(a, [&](int p) {
      const RowPair moments = row_moments(a_h_of(a, row, p), width, row.lane);
      if (row.lane == 0) of_states[p] = moments;
    });
    __syncthreads();
    of_h = merge_moments(P, width, a.at.epsilon, row.lane, [&](int p) { return of_states[p]; });
    of_x = row.saved(a, a.of_x);
    row.save(a, a.of_h, of_h.mean, of_h.scale);
  }
  row.for_blocks(a, [&](int p) {
    const RowPair moments = update_cell(a, row, p, of_h, of_x);
    if (a.at.normalized && row.lane == 0) of_cells[p] = moments;
  });
  if (a.at.normalized) {
    __syncthreads();
    of_c = merge_moments(P, a.at.units, a.at.epsilon, row.lane, [&](int p) { return of_cells[p]; });
    row.save(a, a.of_c, of_c.mean, of_c.scale);
  }
  row.for_blocks(a, [&](int p) { write_output(f, row, p, of_c); });
}

__global__ void backward_step(StepBackward b) {
  const StepArrays& a = b.arrays;
  const Row row;
  const int P = a.at.blocks, H = a.at.hidden();
  RowPair* of_cells = shared_memory<RowPair>();
  GateSums* of_gates = reinterpret_cast<GateSums*>(of_cells + P);
  Normal of_h, of_x, of_c;
  if (a.at.normalized) {
    of_h = row.saved(a, a.of_h);
    of_x = row.saved(a, a.of_x);
    of_c = row.saved(a, a.of_c);
  }
  row.for_blocks(a, [&](int p) {
    const RowPair sums = output_backward(b, row, p, of_c);
    if (a.at.normalized && row.lane == 0) of_cells[p] = sums;
  });
  RowPair means;
  if (a.at.normalized) {
    __syncthreads();
    means = merge_means(P, H, row.lane, [&](int p) { return of_cells[p]; });
  }
  row.for_blocks(a, [&](int p) {
    const GateSums sums = gates_backward(b, row, p, of_c, means, of_h, of_x);
    if (a.at.normalized && row.lane == 0) of_gates[p] = sums;
  });
  if (!a.at.normalized) return;
  __syncthreads();
  const RowPair of_x_sums = merge_means(P, 4 * H, row.lane, [&](int p) { return of_gates[p].x; });
  const RowPair of_h_sums = merge_means(P, 4 * H, row.lane, [&](int p) { return of_gates[p].h; });
  row.save(a, b.sums_x, of_x_sums.first, of_x_sums.second);
  row.save(a, b.sums_h, of_h_sums.first, of_h_sums.second);
  row.for_blocks(a, [&](int p) { normalization_backward(b, row, p, of_h, of_h_sums); });
}

// --- a step in three kernels ------------------------------------------------------------------------------

__global__ void measure_states_kernel(StepForward f, float* partial) {
  const StepArrays& a = f.arrays;
  const Row row;
  row.for_blocks(a, [&](int p) {
    two().store(partial, a, row, p, row_moments(a_h_of(a, row, p), 4 * a.at.units, row.lane));
  });
}

__global__ void update_cells_kernel(StepForward f, const float* all, float* partial) {
  const StepArrays& a = f.arrays;
  const Row row;
  const Normal of_x = row.saved(a, a.of_x);
  const Normal of_h = merge_moments(a.at.all_blocks, 4 * a.at.units, a.at.epsilon, row.lane,
                                    [&](int block) { return two().load(all, a, row, block); });
  row.save(a, a.of_h, of_h.mean, of_h.scale);
  row.for_blocks(a, [&](int p) { two().store(partial, a, row, p, update_cell(a, row, p, of_h, of_x)); });
}

__global__ void write_outputs_kernel(StepForward f, const float* all) {
  const StepArrays& a = f.arrays;
  const Row row;
  const Normal of_c = merge_moments(a.at.all_blocks, a.at.units, a.at.epsilon, row.lane,
                                    [&](int block) { return two().load(all, a, row, block); });
  row.save(a, a.of_c, of_c.mean, of_c.scale);
  row.for_blocks(a, [&](int p) { write_output(f, row, p, of_c); });
}

__global__ void output_backward_kernel(StepBackward b, float* partial) {
  const StepArrays& a = b.arrays;
  const Row row;
  const Normal of_c = row.saved(a, a.of_c);
  row.for_blocks(a, [&](int p) { two().store(partial, a, row, p, output_backward(b, row, p, of_c)); });
}

__global__ void gates_backward_kernel(StepBackward b, const float* all, float* partial) {
  const StepArrays& a = b.arrays;
  const Row row;
  const Normal of_h = row.saved(a, a.of_h), of_x = row.saved(a, a.of_x), of_c = row.saved(a, a.of_c);
  const RowPair means = merge_means(a.at.all_blocks, a.at.hidden(), row.lane,
                                    [&](int block) { return two().load(all, a, row, block); });
  row.for_blocks(a, [&](int p) {
    const GateSums sums = gates_backward(b, row, p, of_c, means, of_h, of_x);
    Numbers{4, 0}.store(partial, a, row, p, sums.h);
    Numbers{4, 2}.store(partial, a, row, p, sums.x);
  });
}

__global__ void normalization_backward_kernel(StepBackward b, const float* all) {
  const StepArrays& a = b.arrays;
  const Row row;
  const auto means = [&](Numbers numbers) {
    return merge_means(a.at.all_blocks, 4 * a.at.hidden(), row.lane,
                       [&](int block) { return numbers.load(all, a, row, block); });
  };
  const RowPair of_h_sums = means({4, 0}), of_x_sums = means({4, 2});
  row.save(a, b.sums_h, of_h_sums.first, of_h_sums.second);
  row.save(a, b.sums_x, of_x_sums.first, of_x_sums.second);
  const Normal of_h = row.saved(a, a.of_h);
  row.for_blocks(a, [&](int p) { normalization_backward(b, row, p, of_h, of_h_sums); });
}

LaunchShape for_lanes(const Sequence& at, int pairs_per_block = 0) {
  const int warps = at.blocks < kMostWarps ? at.blocks : kMostWarps;
  return {.grid = dim3(static_cast<unsigned>(at.rows), static_cast<unsigned>(at.groups)),
          .block = dim3(static_cast<unsigned>(32 * warps)),
          .shared_bytes = static_cast<std::size_t>(pairs_per_block * at.blocks) * sizeof(RowPair)};
}

}  // namespace

void run_step(const Device& device, const StepForward& step) {
  launch(device, forward_step, for_lanes(step.arrays.at, 2), step);
}
void run_step(const Device& device, const StepBackward& step) {
  launch(device, backward_step, for_lanes(step.arrays.at, 3), step);
}

void measure_states(const Device& device, const StepForward& step, float* partial) {
  launch(device, measure_states_kernel, for_lanes(step.arrays.at), step, partial);
}
void update_cells(const Device& device, const StepForward& step, const float* all, float* partial) {
  launch(device, update_cells_kernel, for_lanes(step.arrays.at), step, all, partial);
}
void write_outputs(const Device& device, const StepForward& step, const float* all) {
  launch(device, write_outputs_kernel, for_lanes(step.arrays.at), step, all);
}

void output_backward(const Device& device, const StepBackward& step, float* partial) {
  launch(device, output_backward_kernel, for_lanes(step.arrays.at), step, partial);
}
void gates_backward(const Device& device, const StepBackward& step, const float* all, float* partial) {
  launch(device, gates_backward_kernel, for_lanes(step.arrays.at), step, all, partial);
}
void normalization_backward(const Device& device, const StepBackward& step, const float* all) {
  launch(device, normalization_backward_kernel, for_lanes(step.arrays.at), step, all);
}

}  // namespace lamina::cuda
