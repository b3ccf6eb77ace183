// A product and a pointwise kernel per time step; and for what runs the steps in another way, all that is
// done before and after them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>

#include "kernels/cuda/exchange.h"
#include "kernels/cuda/group_tree.h"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/recording.h"
#include "kernels/cuda/recurrence/sequence.h"
#include "kernels/cuda/recurrence/sequence_kernels.h"
#include "kernels/cuda/recurrence/step_kernels.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// A matrix for a product: f32, or in bf16 where that is given.
struct Operand {
  const float* values = nullptr;
  const __nv_bfloat16* rounded = nullptr;
};

class PerStepRecurrence : public Recurrence {
 public:
  PerStepRecurrence(Device& device, const RecurrenceShape& shape, Exchange& model_axis);

  void set_parameters(const LstmParameters<const float>& parameters) override;
  void forward(const RecurrenceForward& f) override;
  void backward(const RecurrenceBackward& b) override;
  std::size_t saved_size() const override;

 protected:
  /// All time steps, between the product of W_x with all inputs and the gradients of the parameters.
  virtual void run_forward_steps();
  virtual void run_backward_steps();

  // Forward.
  void begin_forward(const RecurrenceForward& f);
  void transform_input();
  void step_forward(int t);
  void transform_state(int t);
  void write_last_state(const RecurrenceForward& f);

  // Backward.
  void begin_backward(const RecurrenceBackward& b);
  Leaves step_backward(int t, const Leaves& d_h);
  Leaves state_gradient(int t);
  void sum_bias_gradients(const LstmParameters<float>& d);
  void weight_gradients(const LstmParameters<float>& d);
  void input_gradient(std::span<float> d_input);

  // Products, each made when its row count first comes.
  const MatrixProduct& made(std::map<int, MatrixProduct>& products, int rows, const ProductShape& shape);
  const MatrixProduct& input_product(int rows);
  const MatrixProduct& input_gradient_product(int rows);
  const MatrixProduct& weight_product(std::map<int, MatrixProduct>& products, int rows, int inputs,
                                      bool adds);

  /// bf16 operands: copies of rows of h from step `first` on, 0 being before the first.
  void round_h(int first, int steps, const PlacedBlocks& from);
  void round_gradients();

  /// Blocks [D, K, rows, width] of every rank, to their places.
  void gather_blocks(const float* own, int rows, int width, const PlacedBlocks& to);
  /// Runs the loop over time, replaying a graph where the exchanges allow it.
  void run_loop(Recording& recording, const Recording::Key& key, const std::function<void()>& loop);

  int steps_of_sequence() const { return steps_ * at_.rows; }
  std::int64_t hidden() const { return shape_.hidden; }
  std::int64_t width() const { return 4 * std::int64_t{at_.units}; }
  std::int64_t tile_rows() const { return std::int64_t{at_.max_steps} * at_.rows; }
  /// Elements from one block of gates, cells or states to the next.
  std::int64_t gates_block() const { return tile_rows() * width(); }
  std::int64_t cells_block() const { return tile_rows() * at_.units; }
  std::int64_t states_block() const { return cells_block() + std::int64_t{at_.rows} * at_.units; }
  const std::int32_t* lengths() const { return has_lengths_ ? lengths_.view().data() : nullptr; }

  float* gates(int d, int t) { return gates_.view().data() + at_.gates(d, at_.own_first, t); }
  float* a_x(int d, int t) {
    return (at_.normalized ? a_x_ : gates_).view().data() + at_.gates(d, at_.own_first, t);
  }
  /// W_h h: of all steps with LN, else of one.
  float* a_h(int d, int t) {
    return a_h_.view().data() +
           (at_.normalized ? at_.gates(d, at_.own_first, t) : at_.tile(d, at_.own_first, 0, 4 * at_.units));
  }
  std::int64_t a_h_block() const { return at_.normalized ? gates_block() : at_.rows * width(); }
  float* da_h(int d, int t) { return at_.normalized ? a_h(d, t) : gates(d, t); }  // after the loop
  float* h_after(int d, int t) {
    return output_.data() + (std::int64_t{d} * steps_ + t) * at_.rows * hidden();
  }
  const float* h_before(int d, int t) {
    return t == 0 ? h_first_.view().data() + std::int64_t{d} * at_.rows * hidden() : h_after(d, t - 1);
  }
  bool is_rounded() const { return shape_.precision == Precision::bf16; }
  __nv_bfloat16* rounded_h(int d, int t) {  // [D, S+1, R, H]
    return rounded_h_.view().data() + (std::int64_t{d} * (at_.max_steps + 1) + t) * at_.rows * hidden();
  }
  static Operand operand(const float* values, const Buffer<__nv_bfloat16>& rounded, std::int64_t place) {
    return {values, rounded.size() == 0 ? nullptr : rounded.view().data() + place};
  }
  Operand W_x() const { return operand(W_x_.view().data(), rounded_W_x_, 0); }
  Operand W_h() const { return operand(W_h_.view().data(), rounded_W_h_, 0); }
  Operand x(int d, int t) const {
    const std::int64_t place = (std::int64_t{d} * steps_ + t) * at_.rows * shape_.inputs;
    return operand(input_.data() + place, rounded_x_, place);
  }
  Operand h(int d, int t) {  // before step t
    return {h_before(d, t), is_rounded() ? rounded_h(d, t) : nullptr};
  }
  /// da of a step, and of all of them after the loop.
  Operand da_of_step(int d, int t) {
    const std::int64_t place = std::int64_t{d} * at_.own_blocks * at_.rows * width();
    const float* values = at_.normalized ? da_h_step_.view().data() + place : gates(d, t);
    return operand(values, rounded_da_step_, place);
  }
  Operand da_of_h(int d, int t) { return operand(da_h(d, t), rounded_da_h_, rounded_place(d, t)); }
  Operand da_of_x(int d, int t) {
    return operand(a_x(d, t), at_.normalized ? rounded_da_x_ : rounded_da_h_, rounded_place(d, t));
  }
  std::int64_t rounded_place(int d, int t) const {  // [D, K, S, R, 4U]
    return std::int64_t{d} * at_.own_blocks * gates_block() + std::int64_t{t} * at_.rows * width();
  }
  HiddenRows hidden_rows(int t);
  StepArrays step_arrays(int t);
  StepForward forward_of(int t);
  StepBackward backward_of(int t, const Leaves& d_h);

  Device& device_;
  RecurrenceShape shape_;
  Exchange& axis_;
  bool replicated_;  ///< and split: with one rank both schedules are the same
  Sequence at_;
  GroupTree group_tree_;

  Buffer<float> W_x_, W_h_;                                 ///< [K, 4U, I], [K, 4U, H]
  Buffer<float> gain_x_, gain_h_, bias_, gain_c_, bias_c_;  ///< [P, 4, U] or [P, U]
  Buffer<__nv_bfloat16> rounded_W_x_, rounded_W_h_;
  bool has_parameters_ = false;

  // The latest forward pass; what backward() needs of it.
  int steps_ = 0;
  bool ready_for_backward_ = false, has_lengths_ = false;
  std::span<const float> input_;
  std::span<float> output_;
  Buffer<float> h_first_;         ///< [D, R, H]
  Buffer<std::int32_t> lengths_;  ///< [D, R]
  Buffer<float> gates_;           ///< [D, P, S, R, 4U]; backward: dz
  Buffer<float> a_x_, a_h_;       ///< LN: the same; become da_x, da_h. Without: a_h [D, P, R, 4U]
  Buffer<float> c_;               ///< [D, P, S+1, R, U]
  Buffer<float> s_;               ///< [D, P, S, R, U]; backward: dL/d(argument of its tanh)
  Buffer<float> normals_;         ///< LN: 5 x 2 x [S, D, R], see saved()
  SavedNormals of_x_, of_h_, of_c_, sums_h_, sums_x_;

  // bf16 operands; empty without.
  Buffer<__nv_bfloat16> rounded_x_;                    ///< [D, T, R, I]
  Buffer<__nv_bfloat16> rounded_h_;                    ///< [D, S+1, R, H]
  Buffer<__nv_bfloat16> rounded_da_step_;              ///< [D, K, R, 4U]
  Buffer<__nv_bfloat16> rounded_da_h_, rounded_da_x_;  ///< [D, K, S, R, 4U]; without LN one for both

  // One time step, and what is exchanged.
  Buffer<float> partial_, all_;   ///< LN: numbers of blocks [P, 4, D, R] or [P, 2, S, D, R]; [G, …]
  Buffer<float> own_, gathered_;  ///< of this rank and of all: blocks on their way
  Buffer<float> h_;               ///< [D, P, R, U] where rows of h are not complete
  Buffer<float> d_c_, d_n_c_;     ///< [D, P, R, U]
  Buffer<float> d_h_held_;        ///< [D, P, R, U]
  Buffer<float> da_h_step_;       ///< LN, [D, K, R, 4U]
  Buffer<float> d_h_of_block_;    ///< [D, K, R, H]: da_h W_h of each block
  Buffer<float> d_h_shares_, d_h_received_;

  // Gradients.
  std::span<const float> d_output_;
  Buffer<float> d_output_all_;      ///< replicated: [D, P, S*R, U]
  Buffer<float> d_input_of_block_;  ///< [K, rows of a chunk, I]
  Buffer<float> d_input_shares_, d_input_received_;
  Buffer<float> sums_;  ///< over chunks of rows

  MatrixProduct state_product_, state_gradient_product_;
  std::map<int, MatrixProduct> input_products_, input_gradient_products_;
  std::map<int, MatrixProduct> first_weight_h_products_, weight_h_products_, weight_x_products_;
  Recording forward_loop_, backward_loop_;
};

}  // namespace lamina::cuda
