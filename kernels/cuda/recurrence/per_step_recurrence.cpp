// A product and a pointwise kernel per time step. What crosses unit blocks is merged from numbers of single
// blocks in tree order, and products run tile by tile (lane group x unit block), so the bits are those of any
// grid. Names of arrays as in kernels/cpu/recurrence/; shapes: sequence.h.
#include "kernels/cuda/recurrence/per_step_recurrence.h"

#include <algorithm>
#include <utility>

#include "runtime/error.h"
#include "runtime/fault_point.h"
#include "runtime/shape_checks.h"
#include "runtime/trace.h"

namespace lamina::cuda {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Rows of W_x's product for the input's gradient at a time, about: each block's result is kept apart.
constexpr int kInputGradientRows = 512;

void run(const MatrixProduct& product, const Operand& A, const Operand& B, float* C, int count) {
  if (A.rounded != nullptr)
    product.run(A.rounded, B.rounded, C, count);
  else
    product.run(A.values, B.values, C, count);
}

Sequence sequence_of(const RecurrenceShape& shape, bool replicated) {
  const Share& blocks = shape.tiling.blocks;
  return {.groups = shape.tiling.groups.local,
          .rows = shape.tiling.rows,
          .units = shape.hidden / blocks.count,
          .blocks = replicated ? blocks.count : blocks.local,
          .own_blocks = blocks.local,
          .own_first = replicated ? blocks.first : 0,
          .all_blocks = blocks.count,
          .max_steps = shape.max_time_steps,
          .normalized = shape.normalization == Normalization::layer,
          .epsilon = shape.epsilon};
}

// a_h = h W_h^T of one tile
ProductShape state_shape(const Sequence& at, bool replicated) {
  const std::int64_t H = at.hidden(), width = 4 * std::int64_t{at.units};
  const bool one_step = replicated || !at.normalized;
  return {.m = at.rows,
          .n = width,
          .k = H,
          .transposed_B = true,
          .row_A = H,
          .row_B = H,
          .row_C = width,
          .batch_A = 0,
          .batch_B = width * H,
          .batch_C = (one_step ? 1 : std::int64_t{at.max_steps}) * at.rows * width};
}

// The share of one block in dL/dh = da_h W_h
ProductShape state_gradient_shape(const Sequence& at, Precision precision) {
  const std::int64_t H = at.hidden(), width = 4 * std::int64_t{at.units};
  const bool one_step = at.normalized || precision == Precision::bf16;
  return {.m = at.rows,
          .n = H,
          .k = width,
          .row_A = width,
          .row_B = H,
          .row_C = H,
          .batch_A = (one_step ? 1 : std::int64_t{at.max_steps}) * at.rows * width,
          .batch_B = width * H,
          .batch_C = at.rows * H};
}

Operands operands_of(const RecurrenceShape& shape) {
  switch (shape.precision) {
    case Precision::f32:
      break;
    case Precision::tf32:
      return Operands::tf32;
    case Precision::bf16:
      return Operands::bf16;
  }
  return Operands::f32;
}

}  // namespace

PerStepRecurrence::PerStepRecurrence(Device& device, const RecurrenceShape& shape, Exchange& model_axis)
    : device_(device),
      shape_(shape),
      axis_(model_axis),
      replicated_(shape.exchange == lamina::Exchange::replicated && model_axis.size() > 1),
      at_(sequence_of(shape, replicated_)),
      group_tree_(device),
      state_product_(device, state_shape(at_, replicated_), operands_of(shape)),
      state_gradient_product_(device, state_gradient_shape(at_, shape.precision), operands_of(shape)) {
  check(shape.hidden % shape.tiling.blocks.count == 0, "recurrence: H must divide into unit blocks");
  check(shape.tiling.blocks.count <= 64, "recurrence: a GPU merges at most 64 unit blocks");
  const std::size_t D = size(at_.groups), P = size(at_.blocks), K = size(at_.own_blocks),
                    G = size(at_.all_blocks);
  const std::size_t R = size(at_.rows), U = size(at_.units), S = size(at_.max_steps), H = size(hidden());
  const auto make = [&](Buffer<float>& buffer, std::size_t count) {
    buffer = device_.allocate<float>(count);
  };

  make(W_x_, 4 * K * U * size(shape.inputs));
  make(W_h_, 4 * K * U * H);
  make(bias_, 4 * P * U);
  make(h_first_, D * R * H);
  lengths_ = device_.allocate<std::int32_t>(D * R);
  make(gates_, D * P * S * R * 4 * U);
  make(a_h_, D * P * (at_.normalized ? S : 1) * R * 4 * U);
  make(c_, D * P * (S + 1) * R * U);
  make(s_, D * P * S * R * U);
  for (Buffer<float>* buffer : {&d_c_, &d_n_c_, &d_h_held_}) make(*buffer, D * P * R * U);
  if (at_.blocks != at_.all_blocks) make(h_, D * P * R * U);
  make(d_h_of_block_, D * K * R * H);
  if (axis_.size() > 1) {
    make(d_h_shares_, D * R * H);
    make(d_h_received_, D * R * H * (replicated_ ? size(axis_.size()) : 1));
  }
  const std::size_t chunks = size(chunks_of(at_, at_.max_steps));
  make(sums_, chunks * (at_.normalized ? 3 : 1) * D * K * 4 * U);
  // What is gathered: h or W_h h of a step; replicated, also W_x x and dL/dh of a sequence.
  const std::size_t step = R * (replicated_ ? 4 * U : U), sequence = replicated_ ? S * R * 4 * U : 0;
  if (axis_.size() > 1) {
    make(own_, D * K * std::max(step, sequence));
    make(gathered_, D * G * std::max(step, sequence));
  }
  if (replicated_) make(d_output_all_, D * P * S * R * U);
  if (is_rounded()) {
    const auto make_rounded = [&](Buffer<__nv_bfloat16>& buffer, std::size_t count) {
      buffer = device_.allocate<__nv_bfloat16>(count);
    };
    make_rounded(rounded_W_x_, W_x_.size());
    make_rounded(rounded_W_h_, W_h_.size());
    make_rounded(rounded_x_, D * S * R * size(shape.inputs));
    make_rounded(rounded_h_, D * (S + 1) * R * H);
    make_rounded(rounded_da_step_, D * K * R * 4 * U);
    make_rounded(rounded_da_h_, D * K * S * R * 4 * U);
    if (at_.normalized) make_rounded(rounded_da_x_, rounded_da_h_.size());
  }
  if (!at_.normalized) return;
  make(a_x_, gates_.size());
  make(da_h_step_, D * K * R * 4 * U);
  make(gain_x_, 4 * P * U);
  make(gain_h_, 4 * P * U);
  make(gain_c_, P * U);
  make(bias_c_, P * U);
  make(partial_, P * std::max<std::size_t>(4, 2 * S) * D * R);
  if (!is_whole(at_)) make(all_, G * std::max<std::size_t>(4, 2 * S) * D * R);
  const std::size_t rows = S * D * R;
  make(normals_, 10 * rows);
  float* next = normals_.view().data();
  for (SavedNormals* of : {&of_x_, &of_h_, &of_c_, &sums_h_, &sums_x_}) {
    of->mean = std::exchange(next, next + rows);
    of->scale = std::exchange(next, next + rows);
  }
}

void PerStepRecurrence::set_parameters(const LstmParameters<const float>& parameters) {
  const auto copy = [&](std::span<const float> from, Buffer<float>& to) {
    check(from.size() == to.size(), "recurrence: the weights do not fit the shape");
    device_.copy(from.data(), to.view().data(), from.size_bytes());
  };
  copy(parameters.W_x, W_x_);
  copy(parameters.W_h, W_h_);
  if (is_rounded()) {
    const int rows = 4 * at_.own_blocks * at_.units, I = shape_.inputs, H = shape_.hidden;
    round_blocks(device_, {W_x_.view().data(), 0, 0, I}, 1, 1, rows, I,
                 {rounded_W_x_.view().data(), 0, 0, I});
    round_blocks(device_, {W_h_.view().data(), 0, 0, H}, 1, 1, rows, H,
                 {rounded_W_h_.view().data(), 0, 0, H});
  }
  const auto keep = [&](std::span<const float> own, Buffer<float>& all) {
    check(own.size() * size(at_.blocks) == all.size() * size(at_.own_blocks),
          "recurrence: the gains or biases do not fit the shape");
    if (replicated_)
      axis_.all_gather(own.data(), all.view().data(), own.size());
    else
      copy(own, all);
  };
  keep(parameters.bias, bias_);
  has_parameters_ = true;
  if (!at_.normalized) return;
  keep(parameters.gain_x, gain_x_);
  keep(parameters.gain_h, gain_h_);
  keep(parameters.gain_c, gain_c_);
  keep(parameters.bias_c, bias_c_);
}

std::size_t PerStepRecurrence::saved_size() const {
  std::size_t all = h_first_.size() + (at_.normalized ? a_h_.size() : 0);
  for (const Buffer<float>* buffer : {&gates_, &a_x_, &c_, &s_, &normals_}) all += buffer->size();
  return all;
}

// --- forward ----------------------------------------------------------------------------------------------

void PerStepRecurrence::forward(const RecurrenceForward& f) {
  const Span span(SpanKind::other, "recurrence forward");
  check(has_parameters_, "recurrence: forward() before set_parameters()");
  check_fits(shape_, f);
  ready_for_backward_ = false;
  begin_forward(f);
  transform_input();
  if (axis_.is_capturable()) fault_point(FaultPoint::forward_exchange);  // else in every step
  run_forward_steps();
  write_last_state(f);
  ready_for_backward_ = true;
}

void PerStepRecurrence::run_forward_steps() {
  run_loop(forward_loop_,
           {size(steps_), size(has_lengths_), reinterpret_cast<std::uintptr_t>(output_.data())}, [&] {
             for (int t = 0; t < steps_; ++t) step_forward(t);
           });
}

void PerStepRecurrence::begin_forward(const RecurrenceForward& f) {
  steps_ = f.time_steps;
  input_ = f.input;
  output_ = f.output;
  has_lengths_ = !f.lengths.empty();
  if (has_lengths_) device_.to_device(f.lengths.data(), lengths_.view().data(), f.lengths.size_bytes());
  device_.copy(f.h_first.data(), h_first_.view().data(), f.h_first.size_bytes());
  if (is_rounded()) {
    round_h(0, 1, {h_first_.view().data(), at_.rows * hidden(), 0, hidden()});
    const int I = shape_.inputs, rows = at_.groups * steps_of_sequence();
    float* input = const_cast<float*>(input_.data());  // only read
    round_blocks(device_, {input, 0, 0, I}, 1, 1, rows, I, {rounded_x_.view().data(), 0, 0, I});
  }
  gather_blocks(f.c_first.data(), at_.rows, at_.units,
                {c_.view().data(), at_.blocks * states_block(), states_block(), at_.units});
  if (h_.size() == 0) return;
  const Share& blocks = shape_.tiling.blocks;
  const float* first = h_first_.view().data() + std::int64_t{blocks.first} * at_.units;
  pack_blocks(device_, {const_cast<float*>(first), at_.rows * hidden(), at_.units, hidden()}, at_.groups,
              at_.own_blocks, at_.rows, at_.units, h_.view().data());
}

void PerStepRecurrence::round_h(int first, int steps, const PlacedBlocks& from) {
  round_blocks(device_, from, at_.groups, 1, steps * at_.rows, shape_.hidden,
               {rounded_h(0, first), rounded_h(1, 0) - rounded_h(0, 0), 0, hidden()});
}

void PerStepRecurrence::gather_blocks(const float* own, int rows, int width, const PlacedBlocks& to) {
  if (!replicated_) return place_blocks(device_, own, 1, at_.groups, at_.own_blocks, rows, width, to);
  const std::size_t count = size(std::int64_t{at_.groups} * at_.own_blocks * rows * width);
  axis_.all_gather(own, gathered_.view().data(), count);
  place_blocks(device_, gathered_.view().data(), axis_.size(), at_.groups, at_.own_blocks, rows, width, to);
}

const MatrixProduct& PerStepRecurrence::made(std::map<int, MatrixProduct>& products, int rows,
                                             const ProductShape& shape) {
  const auto found = products.find(rows);
  if (found != products.end()) return found->second;
  return products.try_emplace(rows, device_, shape, operands_of(shape_)).first->second;
}

const MatrixProduct& PerStepRecurrence::input_product(int rows) {
  const std::int64_t I = shape_.inputs;
  return made(input_products_, rows,
              {.m = rows,
               .n = width(),
               .k = I,
               .transposed_B = true,
               .row_A = I,
               .row_B = I,
               .row_C = width(),
               .batch_A = 0,
               .batch_B = width() * I,
               .batch_C = gates_block()});
}

// W_x x of all time steps, and its statistics: one product and one exchange.
void PerStepRecurrence::transform_input() {
  const MatrixProduct& product = input_product(steps_of_sequence());
  for (int d = 0; d < at_.groups; ++d) {
    float* to = replicated_ ? own_.view().data() + d * at_.own_blocks * gates_block() : a_x(d, 0);
    run(product, x(d, 0), W_x(), to, at_.own_blocks);
  }
  if (replicated_) {
    float* all = (at_.normalized ? a_x_ : gates_).view().data();
    gather_blocks(own_.view().data(), at_.max_steps * at_.rows, 4 * at_.units,
                  {all, at_.blocks * gates_block(), gates_block(), width()});
  }
  if (!at_.normalized) return;
  measure_inputs(device_, at_, steps_, a_x_.view().data(), partial_.view().data());
  const bool whole = is_whole(at_);
  const std::size_t count = size(at_.blocks) * 2 * size(at_.max_steps) * size(at_.lanes());
  if (!whole) axis_.all_gather(partial_.view().data(), all_.view().data(), count);
  merge_inputs(device_, at_, steps_, (whole ? partial_ : all_).view().data(), of_x_);
}

void PerStepRecurrence::run_loop(Recording& recording, const Recording::Key& key,
                                 const std::function<void()>& loop) {
  if (axis_.is_capturable())
    recording.run(device_, key, loop);
  else
    loop();
}

StepArrays PerStepRecurrence::step_arrays(int t) {
  return {.at = at_,
          .t = t,
          .parameters = {gain_h_.view().data(), gain_x_.view().data(), bias_.view().data(),
                         gain_c_.view().data(), bias_c_.view().data()},
          .lengths = lengths(),
          .a_h = a_h_.view().data(),
          .a_x = (at_.normalized ? a_x_ : gates_).view().data(),
          .gates = gates_.view().data(),
          .c = c_.view().data(),
          .s = s_.view().data(),
          .of_h = of_h_,
          .of_x = of_x_,
          .of_c = of_c_};
}

/// h after step t - 1, where the pointwise work reads and writes it.
HiddenRows PerStepRecurrence::hidden_rows(int t) {
  const std::int64_t R = at_.rows, U = at_.units;
  if (h_.size() > 0) return {h_.view().data(), at_.blocks * R * U, R * U, U};
  return {const_cast<float*>(h_before(0, t)), (t == 0 ? 1 : steps_) * R * hidden(), U, hidden()};
}

StepForward PerStepRecurrence::forward_of(int t) {
  StepForward step{.arrays = step_arrays(t), .h_before = hidden_rows(t), .h = hidden_rows(t + 1)};
  if (!is_rounded() || h_.size() > 0) return step;
  step.rounded_h = rounded_h(0, t + 1);
  step.rounded_group = rounded_h(1, 0) - rounded_h(0, 0);
  return step;
}

// Eq. 20-22: z = LN(W_h h) + LN(W_x x) + b; c = f c + i g; h = o tanh(LN(c)).
void PerStepRecurrence::step_forward(int t) {
  transform_state(t);
  const StepForward step = forward_of(t);
  if (is_whole(at_)) {
    run_step(device_, step);
  } else {
    const std::size_t count = size(at_.blocks) * 2 * size(at_.lanes());
    float *partial = partial_.view().data(), *all = all_.view().data();
    measure_states(device_, step, partial);
    axis_.all_gather(partial, all, count);
    update_cells(device_, step, all, partial);
    axis_.all_gather(partial, all, count);
    write_outputs(device_, step, all);
  }
  if (!axis_.is_capturable()) fault_point(FaultPoint::forward_exchange);
  if (h_.size() == 0) return;
  axis_.all_gather(h_.view().data(), gathered_.view().data(), h_.size());
  const std::int64_t group = std::int64_t{steps_} * at_.rows * hidden();
  place_blocks(device_, gathered_.view().data(), axis_.size(), at_.groups, at_.own_blocks, at_.rows,
               at_.units, {h_after(0, t), group, at_.units, hidden()});
  if (is_rounded()) round_h(t + 1, 1, {h_after(0, t), group, 0, hidden()});
}

void PerStepRecurrence::transform_state(int t) {
  const std::int64_t own_tile = at_.own_blocks * at_.rows * width();
  for (int d = 0; d < at_.groups; ++d)
    run(state_product_, h(d, t), W_h(), replicated_ ? own_.view().data() + d * own_tile : a_h(d, t),
        at_.own_blocks);
  if (!replicated_) return;
  float* all = a_h_.view().data() + (at_.normalized ? at_.gates(0, 0, t) : 0);
  gather_blocks(own_.view().data(), at_.rows, 4 * at_.units,
                {all, at_.blocks * a_h_block(), a_h_block(), width()});
}

void PerStepRecurrence::write_last_state(const RecurrenceForward& f) {
  const std::int64_t step = at_.rows * hidden();
  for (int d = 0; d < at_.groups; ++d)
    device_.copy(h_before(d, steps_), f.h_last.data() + d * step, size(step) * sizeof(float));
  pack_blocks(device_,
              {c_.view().data() + at_.state(0, at_.own_first, steps_), at_.blocks * states_block(),
               states_block(), at_.units},
              at_.groups, at_.own_blocks, at_.rows, at_.units, f.c_last.data());
}

// --- backward ---------------------------------------------------------------------------------------------

void PerStepRecurrence::backward(const RecurrenceBackward& b) {
  const Span span(SpanKind::other, "recurrence backward");
  check(ready_for_backward_, "recurrence: backward() needs a forward() of its own");
  check_fits(shape_, steps_, b);
  begin_backward(b);
  run_backward_steps();
  sum_bias_gradients(b.d_parameters);
  if (is_rounded()) round_gradients();
  weight_gradients(b.d_parameters);
  if (!b.d_input.empty()) input_gradient(b.d_input);
  ready_for_backward_ = false;
}

void PerStepRecurrence::run_backward_steps() {
  run_loop(backward_loop_,
           {size(steps_), size(has_lengths_), reinterpret_cast<std::uintptr_t>(d_output_.data())}, [&] {
             Leaves d_h;
             for (int t = steps_ - 1; t >= 0; --t) d_h = step_backward(t, d_h);
           });
}

void PerStepRecurrence::begin_backward(const RecurrenceBackward& b) {
  d_output_ = b.d_output;
  if (replicated_) {
    const std::int64_t block = std::int64_t{steps_of_sequence()} * at_.units;
    gather_blocks(b.d_output.data(), steps_of_sequence(), at_.units,
                  {d_output_all_.view().data(), at_.blocks * block, block, at_.units});
    d_output_ = d_output_all_.view().first(size(at_.groups * at_.blocks * block));
  }
  for (Buffer<float>* zeroed : {&d_c_, &d_h_held_})
    device_.clear(zeroed->view().data(), zeroed->size() * sizeof(float));
}

StepBackward PerStepRecurrence::backward_of(int t, const Leaves& d_h) {
  return {.arrays = step_arrays(t),
          .d_output = d_output_.data(),
          .steps = steps_,
          .d_h = d_h,
          .d_h_held = has_lengths_ ? d_h_held_.view().data() : nullptr,
          .d_c = d_c_.view().data(),
          .d_n_c = d_n_c_.view().data(),
          .da_h = is_rounded() ? nullptr : da_h_step_.view().data(),
          .rounded_da_h = rounded_da_step_.view().data(),
          .sums_h = sums_h_,
          .sums_x = sums_x_};
}

// The chain rule back through step_forward; each LN needs two sums over its vector. Returns dL/dh of t-1.
Leaves PerStepRecurrence::step_backward(int t, const Leaves& d_h) {
  const StepBackward step = backward_of(t, d_h);
  if (is_whole(at_)) {
    run_step(device_, step);
  } else {
    const std::size_t pair = size(at_.blocks) * 2 * size(at_.lanes());
    float *partial = partial_.view().data(), *all = all_.view().data();
    output_backward(device_, step, partial);
    axis_.all_gather(partial, all, pair);
    gates_backward(device_, step, all, partial);
    axis_.all_gather(partial, all, 2 * pair);
    normalization_backward(device_, step, all);
  }
  return t > 0 ? state_gradient(t) : Leaves{};
}

// dL/dh of t-1 = the sum over all unit blocks of da_h W_h.
Leaves PerStepRecurrence::state_gradient(int t) {
  const std::int64_t R = at_.rows, H = hidden(), of_tile = at_.own_blocks * R;
  if (is_rounded() && !at_.normalized)
    round_blocks(device_, {gates(0, t), at_.blocks * gates_block(), gates_block(), width()}, at_.groups,
                 at_.own_blocks, at_.rows, 4 * at_.units,
                 {rounded_da_step_.view().data(), of_tile * width(), R * width(), width()});
  for (int d = 0; d < at_.groups; ++d)
    run(state_gradient_product_, da_of_step(d, t), W_h(), d_h_of_block_.view().data() + d * of_tile * H,
        at_.own_blocks);
  const Leaves of_blocks{d_h_of_block_.view().data(), at_.own_blocks, R * H, of_tile * H, H};
  if (axis_.size() == 1) return of_blocks;
  const int M = axis_.size(), columns = static_cast<int>(H);
  float *shares = d_h_shares_.view().data(), *received = d_h_received_.view().data();
  const std::size_t lanes_and_units = size(at_.groups * R * H);
  if (replicated_) {
    sum_leaves(device_, of_blocks, at_.groups, at_.rows, columns, 1, shares);
    axis_.all_gather(shares, received, lanes_and_units);
    return {received, M, at_.groups * R * H, R * H, H};
  }
  sum_leaves(device_, of_blocks, at_.groups, at_.rows, columns, M, shares);
  axis_.all_to_all(shares, received, lanes_and_units / size(M));
  return {received, M, at_.groups * R * H / M, R * H / M, H / M};
}

void PerStepRecurrence::sum_bias_gradients(const LstmParameters<float>& d) {
  const int chunks = chunks_of(at_, steps_);
  const auto sum = [&](int which, int kinds, int units, std::span<float> out) {
    const std::int64_t count = std::int64_t{at_.own_blocks} * units, columns = at_.groups * count;
    sum_chunks(device_, sums_.view().data() + which * columns, chunks, kinds * columns, at_.groups, count,
               out.data());
  };
  const int width = 4 * at_.units;
  if (!at_.normalized) {
    sum_gates(device_, at_, steps_, gates_.view().data(), sums_.view().data());
    return sum(0, 1, width, d.bias);
  }
  const StepArrays arrays = step_arrays(0);
  sum_cells(device_, at_, steps_, arrays.s, arrays.c, of_c_, sums_.view().data());
  sum(0, 2, at_.units, d.gain_c);
  sum(1, 2, at_.units, d.bias_c);
  finish_gates(device_,
               {.at = at_,
                .steps = steps_,
                .lengths = lengths(),
                .parameters = arrays.parameters,
                .dz = arrays.gates,
                .a_h = a_h_.view().data(),
                .a_x = a_x_.view().data(),
                .of_h = of_h_,
                .of_x = of_x_,
                .sums_h = sums_h_,
                .sums_x = sums_x_},
               sums_.view().data());
  sum(0, 3, width, d.gain_h);
  sum(1, 3, width, d.gain_x);
  sum(2, 3, width, d.bias);
}

void PerStepRecurrence::round_gradients() {
  const std::int64_t group = at_.own_blocks * gates_block();
  const auto round = [&](float* da, Buffer<__nv_bfloat16>& to) {
    round_blocks(device_, {da, at_.blocks * gates_block(), gates_block(), width()}, at_.groups,
                 at_.own_blocks, steps_of_sequence(), 4 * at_.units,
                 {to.view().data(), group, gates_block(), width()});
  };
  round(da_h(0, 0), rounded_da_h_);
  if (at_.normalized) round(a_x(0, 0), rounded_da_x_);
}

// dW = da^T B of one group and block, B [rows, inputs]
const MatrixProduct& PerStepRecurrence::weight_product(std::map<int, MatrixProduct>& products, int rows,
                                                       int inputs, bool adds) {
  return made(products, rows,
              {.m = width(),
               .n = inputs,
               .k = rows,
               .transposed_A = true,
               .row_A = width(),
               .row_B = inputs,
               .row_C = inputs,
               .batch_A = gates_block(),
               .batch_B = 0,
               .batch_C = width() * inputs,
               .adds = adds,
               .packed = true});
}

void PerStepRecurrence::weight_gradients(const LstmParameters<float>& d_parameters) {
  const int rows = steps_of_sequence(), K = at_.own_blocks;
  group_tree_.sum(at_.groups, d_parameters.W_h, [&](int d, std::span<float> d_W_h) {
    run(weight_product(first_weight_h_products_, at_.rows, shape_.hidden, false), da_of_h(d, 0), h(d, 0),
        d_W_h.data(), K);
    if (steps_ > 1)
      run(weight_product(weight_h_products_, rows - at_.rows, shape_.hidden, true), da_of_h(d, 1), h(d, 1),
          d_W_h.data(), K);
  });
  group_tree_.sum(at_.groups, d_parameters.W_x, [&](int d, std::span<float> d_W_x) {
    run(weight_product(weight_x_products_, rows, shape_.inputs, false), da_of_x(d, 0), x(d, 0), d_W_x.data(),
        K);
  });
}

// The share of each block in dL/dx = da_x W_x
const MatrixProduct& PerStepRecurrence::input_gradient_product(int rows) {
  const std::int64_t I = shape_.inputs;
  return made(input_gradient_products_, rows,
              {.m = rows,
               .n = I,
               .k = width(),
               .row_A = width(),
               .row_B = I,
               .row_C = I,
               .batch_A = gates_block(),
               .batch_B = width() * I,
               .batch_C = rows * I});
}

// dL/dx = the sum over all unit blocks of da_x W_x, in chunks of time steps.
void PerStepRecurrence::input_gradient(std::span<float> d_input) {
  const int R = at_.rows, I = shape_.inputs, K = at_.own_blocks, M = axis_.size();
  const int share = I / at_.all_blocks, steps_of_chunk = std::max(1, kInputGradientRows / R);
  const std::int64_t block = std::int64_t{steps_of_sequence()} * share;
  const auto grow = [&](Buffer<float>& buffer, std::size_t count) {
    if (buffer.size() < count) buffer = device_.allocate<float>(count);
  };
  const int most_rows = std::min(steps_of_chunk, at_.max_steps) * R;
  grow(d_input_of_block_, size(std::int64_t{K} * most_rows * I));
  if (M > 1) {
    grow(d_input_shares_, size(std::int64_t{most_rows} * I));
    grow(d_input_received_, size(std::int64_t{most_rows} * I));
  }
  for (int d = 0; d < at_.groups; ++d)
    for (int t = 0; t < steps_; t += steps_of_chunk) {
      const int rows = std::min(steps_of_chunk, steps_ - t) * R;
      run(input_gradient_product(rows), da_of_x(d, t), W_x(), d_input_of_block_.view().data(), K);
      Leaves leaves{d_input_of_block_.view().data(), K, std::int64_t{rows} * I, 0, I};
      if (M > 1) {
        sum_leaves(device_, leaves, 1, rows, I, M, d_input_shares_.view().data());
        const std::int64_t received = std::int64_t{rows} * I / M;
        axis_.all_to_all(d_input_shares_.view().data(), d_input_received_.view().data(), size(received));
        leaves = {d_input_received_.view().data(), M, received, 0, I / M};
      }
      sum_leaves_to_blocks(device_, leaves, 1, rows, I / M, share,
                           {d_input.data() + (d * K) * block + std::int64_t{t} * R * share, 0, block, share});
    }
}

}  // namespace lamina::cuda
