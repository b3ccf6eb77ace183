#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence/persistent_launch.h"
#include "kernels/cuda/recurrence/persistent_member.cuh"

namespace lamina::cuda {
namespace {

/// A member's shared memory.
struct BackwardMemory {
  uint4* weights;
  float *partial, *gates, *n_h, *s, *n_c, *c_before, *d_h, *d_n_c, *d_c, *d_h_held, *gain_h, *gain_c;
  float *scale_h, *scale_c, *mean_h;
  RowPair* means_c;
  int* lengths;
  LanePlace* places;

  __device__ explicit BackwardMemory(const PersistentArrays& a) {
    const BackwardLayout at(a.grid, a.at.hidden());
    unsigned char* memory = shared_memory<unsigned char>();
    const auto floats = [&](std::size_t offset) { return reinterpret_cast<float*>(memory + offset); };
    weights = reinterpret_cast<uint4*>(memory + at.weights);
    partial = floats(at.partial);
    gates = floats(at.gates);
    n_h = floats(at.n_h);
    s = floats(at.s);
    n_c = floats(at.n_c);
    c_before = floats(at.c_before);
    d_h = floats(at.d_h);
    d_n_c = floats(at.d_n_c);
    d_c = floats(at.d_c);
    d_h_held = floats(at.d_h_held);
    gain_h = floats(at.gain_h);
    gain_c = floats(at.gain_c);
    scale_h = floats(at.scale_h);
    scale_c = floats(at.scale_c);
    mean_h = floats(at.mean_h);
    means_c = reinterpret_cast<RowPair*>(memory + at.means_c);
    lengths = reinterpret_cast<int*>(memory + at.lengths);
    places = reinterpret_cast<LanePlace*>(memory + at.places);
  }
};

/// One member's way back through the sequence. Every thread does its own cells throughout, so what lies in
/// [rows, units] or [rows, 4 units] is its own.
template <int kUnits, int kRowTiles>
class BackwardMember {
 public:
  __device__ explicit BackwardMember(const PersistentBackward& backward)
      : b_(backward),
        a_(b_.arrays),
        memory_(a_),
        me_(a_, memory_.lengths, memory_.places),
        product_(memory_.weights, memory_.partial, 4 * a_.at.hidden(), a_.grid.row_tiles),
        watch_(a_.stall, a_.spin_limit) {}

  __device__ void run() {
    load_weights();
    for (int t = a_.steps - 1; t >= 0; --t) {
      load_step(t);
      if (t < a_.steps - 1) gather_output_gradient(t);
      differentiate_output(t);
      if (me_.is_normalized()) gather_cell_means(t);
      differentiate_gates(t);
      if (t == 0) return;  // the gradient into the first state is dropped
      if (me_.is_normalized()) gather_gate_means(t);
      write_state_gradient(t);
      if (__syncthreads_or(watch_.has_given_up())) return;
      me_.raise_flag(epoch_of(t));
    }
  }

 private:
  static constexpr int kGates = 4 * kUnits;

  /// Of what is said in step t, and of its da_h.
  __device__ unsigned epoch_of(int t) const { return static_cast<unsigned>(a_.steps - t); }
  /// A gate of this thread's unit in [rows, 4 units].
  __device__ int gate(int row, int which) const { return row * kGates + which * kUnits + me_.unit; }

  __device__ void load_weights() const {
    const int hidden = a_.at.hidden(), U = a_.at.units;
    const int count = hidden * kGates / 8;  // of eight values
    copy_to_shared(a_.weights + static_cast<std::int64_t>(me_.index_on_rank()) * count, memory_.weights,
                   count);
    if (me_.is_normalized() && me_.thread < kUnits) {
      for (int which = 0; which < 4; ++which)
        memory_.gain_h[which * kUnits + me_.unit] = a_.parameters.gain_h[(me_.p * 4 + which) * U + me_.u];
      memory_.gain_c[me_.unit] = a_.parameters.gain_c[me_.p * U + me_.u];
    }
    me_.for_cells([&](int, int cell) { memory_.d_c[cell] = memory_.d_h_held[cell] = 0; });
    __syncthreads();
  }

  // What the forward pass kept, while da_h is on its way.
  __device__ void load_step(int t) const {
    me_.for_cells([&](int row, int cell) {
      memory_.d_h[cell] = 0;
      if (!me_.is_real(row)) return;
      const LanePlace place = me_.places[row];
      const std::int64_t tile = static_cast<std::int64_t>(place.d) * a_.at.blocks + me_.p;
      memory_.d_h[cell] =
          b_.d_output[((tile * b_.arrays.steps + t) * a_.at.rows + place.r) * a_.at.units + me_.u];
      if (!me_.is_valid(row, t)) return;
      const float *gates = a_.gates + me_.gates(row, t), *a_h = a_.a_h + me_.gates(row, t);
      const std::int64_t row_of_step = me_.statistics(row, t);
      const float scale_h = me_.is_normalized() ? a_.of_h.scale[row_of_step] : 1;
#pragma unroll
      for (int which = 0; which < 4; ++which) {
        memory_.gates[gate(row, which)] = gates[which * a_.at.units];
        if (me_.is_normalized()) memory_.n_h[gate(row, which)] = a_h[which * a_.at.units] * scale_h;
      }
      memory_.s[cell] = a_.s[me_.cell(row, t)];
      memory_.c_before[cell] = a_.c[me_.state(row, t)];
      if (!me_.is_normalized()) return;
      const Normal of_c{a_.of_c.mean[row_of_step], a_.of_c.scale[row_of_step]};
      memory_.n_c[cell] = of_c.of(a_.c[me_.state(row, t + 1)]);
      if (me_.unit != 0) return;
      memory_.scale_h[row] = scale_h;
      memory_.scale_c[row] = of_c.scale;
    });
  }

  // dL/dh += W_h^T da_h of t + 1
  __device__ void gather_output_gradient(int t) {
    const unsigned epoch = epoch_of(t + 1);
    const int width = 4 * a_.at.hidden();
    const int tiles = a_.grid.rows / kTileRows, at_a_time = a_.grid.row_tiles;
    const __nv_bfloat16* da_h = me_.exchanged(epoch, width);
    me_.wait_for_flags(watch_, epoch, product_.first_member(kGates), product_.end_member(kGates), t);
    for (int tile = 0; tile < tiles; tile += at_a_time) {
      if (tile > 0) __syncthreads();  // the partial sums have been read
      const int count = min(at_a_time, tiles - tile), first = tile * kTileRows;
      product_.run(da_h + static_cast<std::int64_t>(first) * width, count);
      __syncthreads();
      me_.for_cells(first, first + count * kTileRows, [&](int row, int cell) {
        memory_.d_h[cell] = memory_.d_h[cell] + product_.sum(row - first, me_.unit);
      });
    }
  }

  // dz_o, and what LN(c) needs of all members
  __device__ void differentiate_output(int t) const {
    me_.for_cells([&](int row, int cell) {
      float d_h = memory_.d_h[cell], d_n = 0, d_n_n = 0;
      if (me_.is_valid(row, t)) {
        d_h = d_h + memory_.d_h_held[cell];
        memory_.d_h_held[cell] = 0;
        const OutputGradient d(d_h, memory_.s[cell], memory_.gates[gate(row, 2)]);
        memory_.gates[gate(row, 2)] = d.dz_o;
        a_.s[me_.cell(row, t)] = d.d_y;
        d_n = me_.is_normalized() ? memory_.gain_c[me_.unit] * d.d_y : d.d_y;
        if (me_.is_normalized()) d_n_n = d_n * memory_.n_c[cell];
      } else if (me_.is_real(row)) {
        memory_.d_h_held[cell] = memory_.d_h_held[cell] + d_h;
        a_.s[me_.cell(row, t)] = 0;
      }
      memory_.d_n_c[cell] = d_n;
      if (!me_.is_normalized()) return;
      d_n = me_.sum_of_units(d_n);
      d_n_n = me_.sum_of_units(d_n_n);
      me_.say(row, epoch_of(t), d_n, d_n_n);
    });
  }

  __device__ void gather_cell_means(int t) {
    const float count = static_cast<float>(a_.at.hidden());
    me_.sums_of_members(watch_, epoch_of(t), t, [&](int row, const RowPair& sums) {
      memory_.means_c[row] = {sums.first / count, sums.second / count};
    });
    __syncthreads();
  }

  // dL/dc, dz, and what LN(W_h h) needs of all members
  __device__ void differentiate_gates(int t) const {
    me_.for_cells([&](int row, int cell) {
      const bool valid = me_.is_valid(row, t);
      if (valid) differentiate_cell(row, cell);
      float d_n_n = 0;
      float* dz = a_.gates + (me_.is_real(row) ? me_.gates(row, t) : 0);
#pragma unroll
      for (int which = 0; which < 4; ++which) {
        const int i = gate(row, which);
        if (!valid) memory_.gates[i] = 0;
        if (me_.is_real(row)) dz[which * a_.at.units] = memory_.gates[i];
        if (valid && me_.is_normalized())
          d_n_n = fmaf(memory_.gain_h[which * kUnits + me_.unit] * memory_.gates[i], memory_.n_h[i], d_n_n);
      }
      if (!me_.is_normalized() || t == 0) return;
      d_n_n = me_.sum_of_units(d_n_n);
      me_.say(row, epoch_of(t), d_n_n);
    });
  }

  __device__ void differentiate_cell(int row, int cell) const {
    const float from_output = memory_.d_n_c[cell], from_later = memory_.d_c[cell];
    float d_c = from_later + from_output;
    if (me_.is_normalized()) {
      const RowPair means = memory_.means_c[row];
      d_c = from_later + normalization_gradient({0, memory_.scale_c[row]}, memory_.n_c[cell], from_output,
                                                means.first, means.second);
    }
    float* gates = memory_.gates;
    const Gates y{gates[gate(row, 0)], gates[gate(row, 1)], 0, gates[gate(row, 3)]};
    const GateGradients dz(d_c, memory_.c_before[cell], y);
    memory_.d_c[cell] = d_c * y.f;
    gates[gate(row, 0)] = dz.f;
    gates[gate(row, 1)] = dz.i;
    gates[gate(row, 3)] = dz.g;
  }

  __device__ void gather_gate_means(int t) {
    const float count = static_cast<float>(4 * a_.at.hidden());
    me_.sum_of_members(watch_, epoch_of(t), t,
                       [&](int row, float sum) { memory_.mean_h[row] = sum / count; });
    __syncthreads();
  }

  // da_h; its part along the mean of dn is left out, as centred columns of W_h are orthogonal to it.
  __device__ void write_state_gradient(int t) const {
    const int width = 4 * a_.at.hidden();
    __nv_bfloat16* all = me_.exchanged(epoch_of(t), width);
    me_.for_cells([&](int row, int) {
      if (!me_.is_real(row)) return;
      __nv_bfloat16* to = all + static_cast<std::int64_t>(row) * width + me_.index * kGates + me_.unit;
      const bool valid = me_.is_valid(row, t);
#pragma unroll
      for (int which = 0; which < 4; ++which) {
        const int i = gate(row, which);
        float da = memory_.gates[i];
        if (me_.is_normalized() && valid)
          da = normalization_gradient({0, memory_.scale_h[row]}, memory_.n_h[i],
                                      memory_.gain_h[which * kUnits + me_.unit] * da, 0, memory_.mean_h[row]);
        me_.exchange(to + which * kUnits, da);
      }
    });
  }

  const PersistentBackward& b_;
  const PersistentArrays& a_;
  BackwardMemory memory_;
  Member<kUnits> me_;
  MemberProduct<kUnits / 8, kRowTiles> product_;
  Watch watch_;
};

template <int kUnits, int kRowTiles>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_backward_kernel(const __grid_constant__ PersistentBackward backward) {
  BackwardMember<kUnits, kRowTiles>(backward).run();
}

struct BackwardKernel {
  template <int kUnits, int kRowTiles>
  static constexpr auto kernel = persistent_backward_kernel<kUnits, kRowTiles>;
};

}  // namespace

void run_persistent(const Device& device, const PersistentBackward& backward, int blocks) {
  const PersistentArrays& a = backward.arrays;
  with_kernel<BackwardKernel>(a.grid, [&](auto kernel) {
    launch_persistent(device, kernel, blocks, BackwardLayout(a.grid, a.at.hidden()).bytes, backward);
  });
}

int resident_backward_blocks(const PersistentGrid& grid, std::size_t shared_bytes) {
  int blocks = 0;
  with_kernel<BackwardKernel>(grid, [&](auto kernel) { blocks = resident_blocks(kernel, shared_bytes); });
  return blocks;
}

}  // namespace lamina::cuda
