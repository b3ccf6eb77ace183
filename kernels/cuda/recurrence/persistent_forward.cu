#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence/persistent_launch.h"
#include "kernels/cuda/recurrence/persistent_member.cuh"

namespace lamina::cuda {
namespace {

/// A member's shared memory.
struct ForwardMemory {
  uint4* weights;
  float *partial, *a_h, *x_term, *c, *h, *gain_h, *gain_x, *bias, *gain_c, *bias_c, *scale_h;
  Normal* of_c;
  int* lengths;
  LanePlace* places;

  __device__ explicit ForwardMemory(const PersistentArrays& a) {
    const ForwardLayout at(a.grid, a.at.hidden());
    unsigned char* memory = shared_memory<unsigned char>();
    const auto floats = [&](std::size_t offset) { return reinterpret_cast<float*>(memory + offset); };
    weights = reinterpret_cast<uint4*>(memory + at.weights);
    partial = floats(at.partial);
    a_h = floats(at.a_h);
    x_term = floats(at.x_term);
    c = floats(at.c);
    h = floats(at.h);
    gain_h = floats(at.gain_h);
    gain_x = floats(at.gain_x);
    bias = floats(at.bias);
    gain_c = floats(at.gain_c);
    bias_c = floats(at.bias_c);
    scale_h = floats(at.scale_h);
    of_c = reinterpret_cast<Normal*>(memory + at.of_c);
    lengths = reinterpret_cast<int*>(memory + at.lengths);
    places = reinterpret_cast<LanePlace*>(memory + at.places);
  }
};

/// One member's way through the sequence. Every thread does its own cells throughout, so what lies in
/// [rows, units] or [rows, 4 units] is its own.
template <int kUnits, int kRowTiles>
class ForwardMember {
 public:
  __device__ explicit ForwardMember(const PersistentForward& forward)
      : f_(forward),
        a_(f_.arrays),
        memory_(a_),
        me_(a_, memory_.lengths, memory_.places),
        product_(memory_.weights, memory_.partial, a_.at.hidden(), a_.grid.row_tiles),
        watch_(a_.stall, a_.spin_limit) {}

  __device__ void run() {
    load_weights();
    load_state();
    for (int t = 0; t < a_.steps; ++t) {
      load_input(t);
      transform_state(t);
      if (me_.is_normalized()) measure_states(t);
      update_cells(t);
      if (me_.is_normalized()) measure_cells(t);
      squash_cells(t);
      write_output(t);
      if (__syncthreads_or(watch_.has_given_up())) return;
      me_.raise_flag(epoch_of(t));
      save_output(t);
    }
  }

 private:
  static constexpr int kGates = 4 * kUnits;

  /// Of what is said in step t, and of h after it.
  static __device__ unsigned epoch_of(int t) { return static_cast<unsigned>(t) + 1; }
  /// A gate of this thread's unit in [rows, 4 units].
  __device__ int gate(int row, int which) const { return row * kGates + which * kUnits + me_.unit; }

  __device__ void load_weights() const {
    const int hidden = a_.at.hidden(), U = a_.at.units;
    const int count = hidden * kGates / 8;  // of eight values
    copy_to_shared(a_.weights + static_cast<std::int64_t>(me_.index_on_rank()) * count, memory_.weights,
                   count);
    if (me_.thread >= kUnits) return;
    const CellParameters& w = a_.parameters;
    for (int which = 0; which < 4; ++which) {
      const int to = which * kUnits + me_.unit, from = (me_.p * 4 + which) * U + me_.u;
      memory_.bias[to] = w.bias[from];
      if (!me_.is_normalized()) continue;
      memory_.gain_h[to] = w.gain_h[from];
      memory_.gain_x[to] = w.gain_x[from];
    }
    if (!me_.is_normalized()) return;
    memory_.gain_c[me_.unit] = w.gain_c[me_.p * U + me_.u];
    memory_.bias_c[me_.unit] = w.bias_c[me_.p * U + me_.u];
  }

  __device__ void load_state() const {
    me_.for_cells([&](int row, int cell) {
      memory_.c[cell] = memory_.h[cell] = 0;
      if (!me_.is_real(row)) return;
      memory_.c[cell] = a_.c[me_.state(row, 0)];
      memory_.h[cell] =
          f_.h_first[static_cast<std::int64_t>(me_.first_lane + row) * a_.at.hidden() + me_.unit_of_layer()];
    });
    __syncthreads();
  }

  // gain_x LN(W_x x) + bias, while h is on its way
  __device__ void load_input(int t) const {
    me_.for_cells([&](int row, int) {
      if (!me_.is_valid(row, t)) return;
      Normal of_x;
      if (me_.is_normalized())
        of_x = {f_.of_x.mean[me_.statistics(row, t)], f_.of_x.scale[me_.statistics(row, t)]};
      const float* a_x = f_.a_x + me_.gates(row, t);
#pragma unroll
      for (int which = 0; which < 4; ++which) {
        const int j = which * kUnits + me_.unit;
        const float x = a_x[which * a_.at.units];
        memory_.x_term[gate(row, which)] =
            me_.is_normalized() ? fmaf(memory_.gain_x[j], of_x.of(x), memory_.bias[j]) : x + memory_.bias[j];
      }
    });
  }

  // W_h h, and what all members need of it
  __device__ void transform_state(int t) {
    const int tiles = a_.grid.rows / kTileRows, at_a_time = a_.grid.row_tiles;
    const __nv_bfloat16* h = me_.exchanged(epoch_of(t - 1), a_.at.hidden());
    me_.wait_for_flags(watch_, epoch_of(t - 1), product_.first_member(kUnits), product_.end_member(kUnits),
                       t);
    for (int tile = 0; tile < tiles; tile += at_a_time) {
      if (tile > 0) __syncthreads();  // the partial sums have been read
      const int count = min(at_a_time, tiles - tile), first = tile * kTileRows;
      product_.run(h + static_cast<std::int64_t>(first) * a_.at.hidden(), count);
      __syncthreads();
      me_.for_cells(first, first + count * kTileRows, [&](int row, int) {
        float squares = 0;
#pragma unroll
        for (int which = 0; which < 4; ++which) {
          const float value = product_.sum(row - first, which * kUnits + me_.unit);
          memory_.a_h[gate(row, which)] = value;
          squares = fmaf(value, value, squares);
        }
        if (!me_.is_normalized()) return;
        squares = me_.sum_of_units(squares);
        me_.say(row, epoch_of(t), squares);
      });
    }
  }

  // The scale of LN(W_h h); the mean is 0.
  __device__ void measure_states(int t) {
    me_.for_cells([&](int row, int) {
      if (!me_.is_real(row)) return;
      float* a_h = a_.a_h + me_.gates(row, t);
#pragma unroll
      for (int which = 0; which < 4; ++which) a_h[which * a_.at.units] = memory_.a_h[gate(row, which)];
    });
    const float count = static_cast<float>(4 * a_.at.hidden());
    me_.sum_of_members(watch_, epoch_of(t), t, [&](int row, float squares) {
      const float scale = 1.0f / sqrtf(squares / count + a_.at.epsilon);
      memory_.scale_h[row] = scale;
      save(a_.of_h, row, t, {0, scale});
    });
    __syncthreads();
  }

  __device__ void update_cells(int t) const {
    me_.for_cells([&](int row, int cell) {
      const bool valid = me_.is_valid(row, t);
      float c = memory_.c[cell];
      if (valid) {
        float z[4];
#pragma unroll
        for (int which = 0; which < 4; ++which) {
          const int i = gate(row, which);
          z[which] = me_.is_normalized() ? fmaf(memory_.gain_h[which * kUnits + me_.unit],
                                                memory_.a_h[i] * memory_.scale_h[row], memory_.x_term[i])
                                         : memory_.a_h[i] + memory_.x_term[i];
        }
        const Gates y = Gates::of(z[0], z[1], z[2], z[3]);
        c = y.cell(c);
        memory_.c[cell] = c;
        memory_.a_h[gate(row, 2)] = y.o;  // for h
        save_gates(row, t, y);
      }
      if (me_.is_real(row)) a_.c[me_.state(row, t + 1)] = c;
      if (!me_.is_normalized()) return;
      const float mean = me_.sum_of_units(c) * (1.0f / kUnits), distance = c - mean;
      const float squares = me_.sum_of_units(distance * distance);
      me_.say(row, epoch_of(t), mean, squares);
    });
  }

  __device__ void save_gates(int row, int t, const Gates& y) const {
    float* gates = a_.gates + me_.gates(row, t);
    gates[0] = y.f;
    gates[a_.at.units] = y.i;
    gates[2 * a_.at.units] = y.o;
    gates[3 * a_.at.units] = y.g;
  }

  __device__ void measure_cells(int t) {
    me_.moments_of_members(watch_, epoch_of(t), t, [&](int row, const Normal& of_c) {
      memory_.of_c[row] = of_c;
      save(a_.of_c, row, t, of_c);
    });
    __syncthreads();
  }

  // s = tanh(LN(c)), h = o s; s stays where the gate i was, until save_output().
  __device__ void squash_cells(int t) const {
    me_.for_cells([&](int row, int cell) {
      if (!me_.is_valid(row, t)) return;
      const float c = memory_.c[cell];
      const float y = me_.is_normalized()
                          ? fmaf(memory_.gain_c[me_.unit], memory_.of_c[row].of(c), memory_.bias_c[me_.unit])
                          : c;
      const float s = tanhf(y);
      memory_.a_h[gate(row, 1)] = s;
      memory_.h[cell] = memory_.a_h[gate(row, 2)] * s;
    });
  }

  __device__ void write_output(int t) const {
    __nv_bfloat16* h = me_.exchanged(epoch_of(t), a_.at.hidden());
    me_.for_cells([&](int row, int cell) {
      if (me_.is_real(row))
        me_.exchange(h + static_cast<std::int64_t>(row) * a_.at.hidden() + me_.unit_of_layer(),
                     memory_.h[cell]);
    });
  }

  // Nobody waits for it.
  __device__ void save_output(int t) const {
    me_.for_cells([&](int row, int cell) {
      if (!me_.is_real(row)) return;
      const LanePlace place = me_.places[row];
      const std::int64_t to = (static_cast<std::int64_t>(place.d) * a_.steps + t) * a_.at.rows + place.r;
      f_.output[to * a_.at.hidden() + me_.unit_of_layer()] = memory_.h[cell];
      f_.rounded_h[rounded_row(place, t + 1) * a_.at.hidden() + me_.unit_of_layer()] =
          __float2bfloat16_rn(memory_.h[cell]);
      if (me_.is_valid(row, t)) a_.s[me_.cell(row, t)] = memory_.a_h[gate(row, 1)];
    });
  }

  __device__ std::int64_t rounded_row(const LanePlace& place, int t) const {
    return (static_cast<std::int64_t>(place.d) * (a_.at.max_steps + 1) + t) * a_.at.rows + place.r;
  }
  /// By one member of the rank for all.
  __device__ void save(const SavedNormals& of, int row, int t, const Normal& normal) const {
    if (me_.index_on_rank() != 0) return;
    of.mean[me_.statistics(row, t)] = normal.mean;
    of.scale[me_.statistics(row, t)] = normal.scale;
  }

  const PersistentForward& f_;
  const PersistentArrays& a_;
  ForwardMemory memory_;
  Member<kUnits> me_;
  MemberProduct<kUnits / 2, kRowTiles> product_;
  Watch watch_;
};

template <int kUnits, int kRowTiles>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    persistent_forward_kernel(const __grid_constant__ PersistentForward forward) {
  ForwardMember<kUnits, kRowTiles>(forward).run();
}

struct ForwardKernel {
  template <int kUnits, int kRowTiles>
  static constexpr auto kernel = persistent_forward_kernel<kUnits, kRowTiles>;
};

}  // namespace

void run_persistent(const Device& device, const PersistentForward& forward, int blocks) {
  const PersistentArrays& a = forward.arrays;
  with_kernel<ForwardKernel>(a.grid, [&](auto kernel) {
    launch_persistent(device, kernel, blocks, ForwardLayout(a.grid, a.at.hidden()).bytes, forward);
  });
}

int resident_forward_blocks(const PersistentGrid& grid, std::size_t shared_bytes) {
  int blocks = 0;
  with_kernel<ForwardKernel>(grid, [&](auto kernel) { blocks = resident_blocks(kernel, shared_bytes); });
  return blocks;
}

}  // namespace lamina::cuda
