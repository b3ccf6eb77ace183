// What a recurrence is made of, and its forward pass; backward: recurrence/backward.cpp.
#include "kernels/cpu/recurrence.h"

#include <algorithm>

#include "kernels/cpu/recurrence/cpu_recurrence.h"
#include "runtime/error.h"
#include "runtime/fault_point.h"
#include "runtime/shape_checks.h"
#include "runtime/trace.h"

namespace lamina {

CpuRecurrence::CpuRecurrence(const RecurrenceShape& shape, Communicator& model_axis, int threads)
    : shape_(shape),
      threads_(threads),
      groups_(size(shape.tiling.groups.local)),
      rows_(size(shape.tiling.rows)),
      units_(size(shape.hidden / shape.tiling.blocks.count)),
      own_blocks_(size(shape.tiling.blocks.local)),
      blocks_(size(gate_share().local)),
      output_blocks_(size(output_share().local)),
      own_first_(replicated() ? size(shape.tiling.blocks.first) : 0),
      own_first_output_(sharded() ? 0 : size(shape.tiling.blocks.first)),
      self_(make_self_communicator()),
      gate_axis_(replicated() ? *self_ : model_axis),
      output_axis_(sharded() ? model_axis : *self_),
      round_(model_axis),
      products_(shape, model_axis),
      gather_(shape.tiling.blocks, model_axis),
      x_gather_(shape.tiling.blocks, model_axis),
      h_gather_(output_share(), output_axis_),
      state_sum_(shape.tiling.blocks, model_axis),
      input_sum_(shape.tiling.blocks, model_axis),
      h_statistics_(static_cast<int>(blocks_), gate_axis_),
      c_statistics_(static_cast<int>(output_blocks_), output_axis_),
      x_statistics_(static_cast<int>(blocks_), gate_axis_),
      gate_sums_(static_cast<int>(blocks_), gate_axis_),
      group_tree_(threads) {
  check(shape.hidden % shape.tiling.blocks.count == 0, "recurrence: H must divide into unit blocks");
  if (shape.table_rows > 0) token_rows_ = std::make_unique<TokenRows>(shape, products_, model_axis, threads);
  allocate();
  if (normalized()) allocate_for_normalization();
}

void CpuRecurrence::allocate() {
  const std::size_t step = groups_ * blocks_ * rows_, steps = size(shape_.max_time_steps);
  const std::size_t output_step = groups_ * output_blocks_ * rows_ * units_;
  gates_.resize(step * steps * 4 * units_);
  c_.resize(output_step * (steps + 1));
  s_.resize(output_step * steps);
  h_first_.resize(groups_ * rows_ * size(shape_.hidden));
  a_h_.resize(normalized() ? gates_.size() : step * 4 * units_);
  for (LargeArray* buffer : {&d_h_, &d_n_c_}) buffer->resize(output_step);
  d_c_.resize(step * units_);
  if (!complete()) h_.resize(output_step);
  if (gathers_cells()) {
    o_.resize(s_.size());
    own_cells_.resize(groups_ * own_blocks_ * 2 * rows_ * units_);
  }
  d_h_of_rank_.resize(h_first_.size());
  d_bias_.resize(groups_ * blocks_ * 4 * units_);
  if (replicated()) own_a_h_.resize(groups_ * own_blocks_ * rows_ * 4 * units_);
}

void CpuRecurrence::allocate_for_normalization() {
  const std::size_t step = groups_ * blocks_ * rows_, steps = size(shape_.max_time_steps);
  h_statistics_.start(groups_ * rows_);
  c_statistics_.start(groups_ * rows_);
  gate_sums_.start((token_rows_ ? 1 : 2) * groups_ * rows_);
  dz_.resize(step * 4 * units_);
  for (SavedStatistics* of : {&of_h_, &of_c_}) of->resize(groups_ * steps * rows_);
  d_gain_h_.resize(d_bias_.size());
  for (Floats* sum : {&d_gain_c_, &d_bias_c_}) sum->resize(groups_ * output_blocks_ * units_);
  if (token_rows_) return;
  a_x_.resize(gates_.size());
  of_x_.resize(groups_ * steps * rows_);
  d_gain_x_.resize(d_bias_.size());
}

void CpuRecurrence::set_parameters(const LstmParameters<const float>& parameters) {
  const std::size_t own_units = own_blocks_ * units_;
  check(parameters.W_x.size() == 4 * own_units * size(shape_.inputs) &&
            parameters.W_h.size() == 4 * own_units * size(shape_.hidden) &&
            parameters.bias.size() == 4 * own_units,
        "recurrence: the weights do not fit the shape");
  products_.set_weights(parameters.W_x, parameters.W_h, threads_);
  if (token_rows_) token_rows_->set_parameters(parameters);
  const auto keep = [&](std::span<const float> own_values, std::size_t width, bool of_all, Floats& kept) {
    check(own_values.size() == own_blocks_ * width, "recurrence: the gains or biases do not fit the shape");
    kept.assign(own_values.begin(), own_values.end());
    if (!of_all) return;
    kept.resize(size(shape_.tiling.blocks.count) * width);
    gather_.run_blocked(1, 1, static_cast<int>(width), own_values, kept);
  };
  keep(parameters.bias, 4 * units_, replicated(), bias_);
  if (!normalized()) return;
  keep(parameters.gain_x, 4 * units_, replicated(), gain_x_);
  keep(parameters.gain_h, 4 * units_, replicated(), gain_h_);
  keep(parameters.gain_c, units_, !sharded(), gain_c_);
  keep(parameters.bias_c, units_, !sharded(), bias_c_);
}

std::size_t CpuRecurrence::saved_size() const {
  return a_x_.size() + (normalized() ? a_h_.size() : 0) + gates_.size() + c_.size() + s_.size() + o_.size() +
         h_first_.size() + of_x_.size() + of_h_.size() + of_c_.size() +
         (token_rows_ ? token_rows_->saved_size() : 0);
}

void CpuRecurrence::forward(const RecurrenceForward& f) {
  const Span span(SpanKind::pointwise, "recurrence forward");
  begin_forward(f, Comes::whole);
  round_.clear();
  TimeSteps steps = forward_steps(round_);
  for (int t = 0; t < steps_; ++t) {
    const Span step(SpanKind::pointwise, "time step");
    run_step({&steps, 1}, round_);
  }
  end_forward(f);
}

void CpuRecurrence::begin_forward(const RecurrenceForward& f, Comes input) {
  check(!bias_.empty(), "recurrence: forward() before set_parameters()");
  check_fits(shape_, f);
  ready_for_backward_ = false;
  input_comes_ = input;
  begin_state(f);
  if (token_rows_) return;
  products_.set_input(groups_ * sequence_rows(), input_.data());
  if (input == Comes::whole) return transform_input();
  if (replicated()) own_a_x_.resize(own_a_h_.size());
  if (!normalized()) return;
  x_statistics_.start(groups_ * rows_);
  step_of_x_.resize(groups_ * rows_);
}

void CpuRecurrence::begin_state(const RecurrenceForward& f) {
  steps_ = f.time_steps;
  input_ = f.input;
  tokens_ = f.tokens;
  output_ = f.output;
  std::ranges::copy(f.h_first, h_first_.begin());
  lengths_.assign(f.lengths.begin(), f.lengths.end());

  LargeArray& c_first = d_c_;  // free before the backward pass
  if (replicated())
    gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(units_),
                        f.c_first, c_first);
  else
    std::ranges::copy(f.c_first, c_first.data());
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) {
    std::copy_n(&c_first[tile(d, p, units_)], rows_ * units_, &c_[state_at(d, output_of(p), 0)]);
  });
  if (complete()) return;
  const std::size_t hidden = size(shape_.hidden), first_unit = size(output_share().first) * units_;
  for_tiles(output_blocks_, [&](std::size_t d, std::size_t q) {
    for (std::size_t row = 0; row < rows_; ++row)
      std::copy_n(&h_first_[(d * rows_ + row) * hidden + first_unit + q * units_], units_,
                  &h_[output_tile(d, q) + row * units_]);
  });
}

// W_x x of all time steps, and its statistics: one product and one exchange.
void CpuRecurrence::transform_input() {
  const Span span(SpanKind::pointwise, "input side");
  const std::size_t width = 4 * units_, tile = sequence_rows() * width;
  if (replicated()) own_a_x_.resize(groups_ * own_blocks_ * tile);
  if (normalized()) x_statistics_.start(groups_ * sequence_rows());
  float* own_a_x = replicated() ? own_a_x_.data() : x_side().data();
  products_.prepare_input(0, groups_ * sequence_rows(), threads_);
  for_chunks(own_blocks_, [&](std::size_t d, std::size_t k, std::size_t first, std::size_t rows) {
    products_.input(k, d * sequence_rows() + first, rows,
                    own_a_x + (d * own_blocks_ + k) * tile + first * width);
    if (!replicated()) measure_input(d, k, first, rows);
  });
  if (replicated()) {
    gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(sequence_rows()), static_cast<int>(width),
                        own_a_x_, std::span<float>(x_side()).first(groups_ * blocks_ * tile));
    for_chunks(blocks_, [&](std::size_t d, std::size_t p, std::size_t first, std::size_t rows) {
      measure_input(d, p, first, rows);
    });
  }
  if (normalized()) x_statistics_.merge_moments(width, shape_.epsilon, of_x_.mean.data(), of_x_.scale.data());
}

void CpuRecurrence::measure_input(std::size_t d, std::size_t p, std::size_t first_row, std::size_t rows) {
  if (!normalized()) return;
  const std::size_t row = d * sequence_rows() + first_row, width = 4 * units_;
  row_moments(&a_x_[gates_at(d, p, 0) + first_row * width], rows, width, x_statistics_.first(p) + row,
              x_statistics_.second(p) + row);
}

// Eq. 20-22: z = LN(W_h h) + LN(W_x x) + b; c = f c + i g; h = o tanh(LN(c)). What is not split over the
// model axis hands nothing in: a round may be empty.
TimeSteps CpuRecurrence::forward_steps(ExchangeRound& round) {
  for (int t = 0; t < steps_; ++t) {
    multiply(t);
    if (replicated()) {
      send_products(t, round);
      co_yield TimeSteps::exchange;
      if (normalized()) for_tiles(blocks_, [&](std::size_t d, std::size_t p) { measure_products(d, p, t); });
    }
    if (normalized()) {
      h_statistics_.send_moments(4 * units_, round);
      if (input_comes_ == Comes::by_steps) x_statistics_.send_moments(4 * units_, round);
      co_yield TimeSteps::exchange;
      take_statistics(t);
    }
    for_tiles(blocks_, [&](std::size_t d, std::size_t p) { update_cell(d, p, t); });
    if (gathers_cells()) {
      send_cells(t, round);
      co_yield TimeSteps::exchange;
      if (normalized())
        for_tiles(output_blocks_, [&](std::size_t d, std::size_t q) { measure_cell(d, q, t); });
    }
    if (normalized()) {
      c_statistics_.send_moments(units_, round);
      co_yield TimeSteps::exchange;
      c_statistics_.take_moments(units_, shape_.epsilon, &of_c_.mean[step_row(0, t)],
                                 &of_c_.scale[step_row(0, t)]);
    }
    for_tiles(output_blocks_, [&](std::size_t d, std::size_t q) { write_output(d, q, t); });
    fault_point(FaultPoint::forward_exchange);
    if (!complete()) {
      h_gather_.send(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(units_), h_,
                     h_after(0, t), sequence_rows() * size(shape_.hidden), round);
      co_yield TimeSteps::exchange;
    }
    co_yield TimeSteps::end_of_step;
  }
}

// W_h h, and W_x x where it was not made for all steps at once.
void CpuRecurrence::multiply(int t) {
  const std::size_t width = 4 * units_;
  const bool input_too = input_comes_ == Comes::by_steps;
  for (std::size_t d = 0; d < groups_; ++d) {
    products_.set_state(d, h_before(d, t));
    if (input_too) products_.prepare_input(input_row(d, t), rows_, threads_);
  }
  for_tiles(own_blocks_, [&](std::size_t d, std::size_t k) {
    const std::size_t own = (d * own_blocks_ + k) * rows_ * width;
    products_.recurrent(d, k, replicated() ? &own_a_h_[own] : a_h(d, k, t));
    if (input_too) products_.input(k, input_row(d, t), rows_, replicated() ? &own_a_x_[own] : a_x(d, k, t));
    if (!replicated()) measure_products(d, k, t);
  });
}

void CpuRecurrence::send_products(int t, ExchangeRound& round) {
  const auto send = [&](BlockGather& gather, const LargeArray& own, const BlockGather::Place& place) {
    gather.send_parts(static_cast<int>(groups_), 1, rows_ * 4 * units_, own, place, round);
  };
  send(gather_, own_a_h_, [this, t](std::size_t d, std::size_t g, std::size_t) { return a_h(d, g, t); });
  if (input_comes_ == Comes::by_steps)
    send(x_gather_, own_a_x_, [this, t](std::size_t d, std::size_t g, std::size_t) { return a_x(d, g, t); });
}

void CpuRecurrence::measure_products(std::size_t d, std::size_t p, int t) {
  if (!normalized()) return;
  const auto measure = [&](const float* a, RowStatistics& statistics) {
    row_moments(a, rows_, 4 * units_, statistics.first(p) + d * rows_, statistics.second(p) + d * rows_);
  };
  measure(a_h(d, p, t), h_statistics_);
  if (input_comes_ == Comes::by_steps) measure(a_x(d, p, t), x_statistics_);
}

void CpuRecurrence::take_statistics(int t) {
  const std::size_t width = 4 * units_;
  h_statistics_.take_moments(width, shape_.epsilon, &of_h_.mean[step_row(0, t)],
                             &of_h_.scale[step_row(0, t)]);
  if (input_comes_ == Comes::whole) return;
  x_statistics_.take_moments(width, shape_.epsilon, step_of_x_.mean.data(), step_of_x_.scale.data());
  for (std::size_t d = 0; d < groups_; ++d) {
    std::copy_n(&step_of_x_.mean[d * rows_], rows_, &of_x_.mean[input_row(d, t)]);
    std::copy_n(&step_of_x_.scale[d * rows_], rows_, &of_x_.scale[input_row(d, t)]);
  }
}

void CpuRecurrence::update_cell(std::size_t d, std::size_t p, int t) {
  const Span span(SpanKind::pointwise, "gates");
  const std::size_t i = gates_at(d, p, t), width = 4 * units_;
  float* c = c_after(d, p, t);
  lstm_gates(cell_tile(d, t), {.a_h = a_h(d, p, t),
                               .a_x = place(x_side(), i),
                               .terms = token_rows_ ? token_rows_->terms(p) : nullptr,
                               .of_h = of_h_.at(step_row(d, t)),
                               .of_x = of_x_.at(input_row(d, t)),
                               .gain_h = place(gain_h_, p * width),
                               .gain_x = place(gain_x_, p * width),
                               .bias = bias_.data() + p * width,
                               .c_before = &c_[state_at(d, output_of(p), t)],
                               .gates = &gates_[i],
                               .c = c});
  if (!gathers_cells()) return measure_cell(d, output_of(p), t);
  float* o = c + rows_ * units_;
  for (std::size_t row = 0; row < rows_; ++row)
    std::copy_n(&gates_[i] + row * width + 2 * units_, units_, o + row * units_);
}

// Eq. 22, h = o tanh(LN(c)): who has c and o of all blocks needs neither the others' statistics nor their h.
void CpuRecurrence::send_cells(int t, ExchangeRound& round) {
  const auto place = [this, t](std::size_t d, std::size_t g, std::size_t part) {
    return part == 0 ? &c_[state_at(d, g, t + 1)] : &o_[cell_at(d, g, t)];
  };
  gather_.send_parts(static_cast<int>(groups_), 2, rows_ * units_, own_cells_, place, round);
}

void CpuRecurrence::measure_cell(std::size_t d, std::size_t q, int t) {
  if (normalized())
    row_moments(&c_[state_at(d, q, t + 1)], rows_, units_, c_statistics_.first(q) + d * rows_,
                c_statistics_.second(q) + d * rows_);
}

void CpuRecurrence::write_output(std::size_t d, std::size_t q, int t) {
  float* h = complete() ? h_after(d, t) + q * units_ : &h_[output_tile(d, q)];
  const OutputGate o = output_gate(d, q, t);
  lstm_output(cell_tile(d, t), {.o = o.values,
                                .o_stride = o.stride,
                                .c = &c_[state_at(d, q, t + 1)],
                                .of_c = of_c_.at(step_row(d, t)),
                                .gain_c = place(gain_c_, q * units_),
                                .bias_c = place(bias_c_, q * units_),
                                .s = &s_[cell_at(d, q, t)],
                                .h_before = complete() ? h_before(d, t) + q * units_ : h,
                                .h = h,
                                .h_stride = complete() ? size(shape_.hidden) : units_});
}

void CpuRecurrence::end_forward(const RecurrenceForward& f) {
  const std::size_t step = rows_ * size(shape_.hidden), state = rows_ * units_;
  for (std::size_t d = 0; d < groups_; ++d) {
    std::copy_n(h_before(d, steps_), step, &f.h_last[d * step]);
    for (std::size_t k = 0; k < own_blocks_; ++k)
      std::copy_n(&c_[state_at(d, output_of(own(k)), steps_)], state,
                  &f.c_last[(d * own_blocks_ + k) * state]);
  }
  ready_for_backward_ = true;
}

std::unique_ptr<Recurrence> make_cpu_recurrence(const RecurrenceShape& shape, Communicator& model_axis,
                                                int threads) {
  return std::make_unique<CpuRecurrence>(shape, model_axis, threads);
}

}  // namespace lamina
