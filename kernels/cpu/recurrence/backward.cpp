// The backward pass through time, and the gradients of the parameters.
#include <algorithm>

#include "kernels/cpu/recurrence/cpu_recurrence.h"
#include "runtime/error.h"
#include "runtime/shape_checks.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {

void CpuRecurrence::backward(const RecurrenceBackward& b) {
  const Span span(SpanKind::pointwise, "recurrence backward");
  begin_backward(b, Comes::whole, {});
  round_.clear();
  TimeSteps steps = backward_steps(round_);
  for (int t = 0; t < steps_; ++t) {
    const Span step(SpanKind::pointwise, "time step backward");
    run_step({&steps, 1}, round_);
    side_work_.advance();
  }
  end_backward(b);
}

void CpuRecurrence::begin_backward(const RecurrenceBackward& b, Comes d_output, std::span<float> pass_down) {
  check(ready_for_backward_, "recurrence: backward() needs a forward() of its own");
  check_fits(shape_, steps_, b);
  side_work_ = b.side_work;
  pass_down_ = pass_down;
  d_output_ = b.d_output;
  if (!sharded()) {
    d_output_all_.resize(b.d_output.size() / own_blocks_ * output_blocks_);
    if (d_output == Comes::whole)
      gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(sequence_rows()),
                          static_cast<int>(units_), b.d_output, d_output_all_);
    d_output_ = d_output_all_;
  }
  if (!pass_down.empty()) {
    d_x_of_rank_.resize(groups_ * rows_ * size(shape_.inputs));
    d_x_.resize(d_x_of_rank_.size() / size(shape_.tiling.blocks.count) * output_blocks_);
  }
  d_h_held_.resize(lengths_.empty() ? 0 : d_h_.size());
  for (LargeArray* zeroed : {&d_h_, &d_h_held_, &d_c_}) std::fill_n(zeroed->data(), zeroed->size(), 0.0f);
  for (Floats* zeroed : {&d_gain_x_, &d_gain_h_, &d_bias_, &d_gain_c_, &d_bias_c_})
    std::ranges::fill(*zeroed, 0.0f);
  if (token_rows_) token_rows_->begin_backward();
}

// The chain rule back through forward_steps; each LN needs two sums over its vector.
TimeSteps CpuRecurrence::backward_steps(ExchangeRound& round) {
  for (int t = steps_ - 1; t >= 0; --t) {
    for_tiles(output_blocks_, [&](std::size_t d, std::size_t q) { output_backward(d, q, t); });
    RowStatistics::Means means;
    if (normalized()) {
      c_statistics_.send_sums(round);
      co_yield TimeSteps::exchange;
      means = c_statistics_.take_sums(size(shape_.hidden));
    }
    for_tiles(blocks_, [&](std::size_t d, std::size_t p) { gates_backward(d, p, t, means.from(d * rows_)); });
    if (normalized()) {
      gate_sums_.send_sums(round);
      co_yield TimeSteps::exchange;
      means = gate_sums_.take_sums(4 * size(shape_.hidden));
      for_tiles(own_blocks_, [&](std::size_t d, std::size_t k) { normalization_backward(d, k, t, means); });
    }
    if (t > 0) send_state_gradient(t, round);
    if (!pass_down_.empty()) send_step_of_input_gradient(t, round);
    co_yield TimeSteps::exchange;
    if (t > 0 && !sharded()) state_sum_.take_everywhere(d_h_);
    if (!pass_down_.empty()) take_step_of_input_gradient(t);
    co_yield TimeSteps::end_of_step;
  }
}

void CpuRecurrence::end_backward(const RecurrenceBackward& b) {
  parameter_gradients(b.d_parameters);
  if (!b.d_input.empty() && pass_down_.empty()) input_gradient(b.d_input);
  ready_for_backward_ = false;
}

void CpuRecurrence::output_backward(std::size_t d, std::size_t q, int t) {
  const Span span(SpanKind::pointwise, "output backward");
  const OutputGate o = output_gate(d, q, t);
  lstm_output_backward(cell_tile(d, t),
                       {.d_output = &d_output_[cell_at(d, q, t)],
                        .d_h = &d_h_[output_tile(d, q)],
                        .d_h_held = lengths_.empty() ? nullptr : &d_h_held_[output_tile(d, q)],
                        .c = &c_[state_at(d, q, t + 1)],
                        .of_c = of_c_.at(step_row(d, t)),
                        .gain_c = place(gain_c_, q * units_),
                        .o = o.values,
                        .o_stride = o.stride,
                        .s = &s_[cell_at(d, q, t)],
                        .dz = has_gates(q) ? dz(d, q - output_of(0), t) : nullptr,
                        .d_n_c = &d_n_c_[output_tile(d, q)],
                        .sum_dn = c_statistics_.first(q) + d * rows_,
                        .sum_dn_n = c_statistics_.second(q) + d * rows_,
                        .d_gain_c = place(d_gain_c_, (d * output_blocks_ + q) * units_),
                        .d_bias_c = place(d_bias_c_, (d * output_blocks_ + q) * units_)});
}

void CpuRecurrence::gates_backward(std::size_t d, std::size_t p, int t, RowStatistics::Means means) {
  const Span span(SpanKind::pointwise, "gates backward");
  const std::size_t i = gates_at(d, p, t), q = output_of(p), width = 4 * units_, x_rows = groups_ * rows_;
  const auto sums = [&](std::size_t row) -> NormalizationSums {
    return {gate_sums_.first(p) + row, gate_sums_.second(p) + row};
  };
  CellTile tile_for_dz_sum = cell_tile(d, t);
  if (!normalized() && !sums_by_token(p)) tile_for_dz_sum.tokens = nullptr;  // another rank sums it
  lstm_gates_backward(tile_for_dz_sum, {.d_n_c = &d_n_c_[output_tile(d, q)],
                                        .mean_dn = means.first,
                                        .mean_dn_n = means.second,
                                        .c = &c_[state_at(d, q, t + 1)],
                                        .c_before = &c_[state_at(d, q, t)],
                                        .of_c = of_c_.at(step_row(d, t)),
                                        .d_c = &d_c_[tile(d, p, units_)],
                                        .gates = &gates_[i],
                                        .dz = dz(d, p, t),
                                        .a_h = a_h(d, p, t),
                                        .a_x = place(x_side(), i),
                                        .of_h = of_h_.at(step_row(d, t)),
                                        .of_x = of_x_.at(input_row(d, t)),
                                        .gain_h = place(gain_h_, p * width),
                                        .gain_x = place(gain_x_, p * width),
                                        .h = sums(d * rows_),
                                        .x = token_rows_ ? NormalizationSums() : sums(x_rows + d * rows_),
                                        .dz_sum = dz_sum(d, p)});
  if (!normalized()) products_.set_gradient(rows_, dz(d, p, t));
}

void CpuRecurrence::normalization_backward(std::size_t d, std::size_t k, int t, RowStatistics::Means means) {
  const std::size_t p = own(k), width = 4 * units_, gradients = (d * blocks_ + p) * width;
  const RowStatistics::Means of_h = means.from(d * rows_);
  const RowStatistics::Means of_x = token_rows_ ? RowStatistics::Means() : means.from((groups_ + d) * rows_);
  lstm_normalization_backward(cell_tile(d, t), {.dz = dz(d, p, t),
                                                .h = {.of = of_h_.at(step_row(d, t)),
                                                      .gain = &gain_h_[p * width],
                                                      .mean_dn = of_h.first,
                                                      .mean_dn_n = of_h.second,
                                                      .a = a_h(d, p, t),
                                                      .d_gain = &d_gain_h_[gradients]},
                                                .x = {.of = of_x_.at(input_row(d, t)),
                                                      .gain = &gain_x_[p * width],
                                                      .mean_dn = of_x.first,
                                                      .mean_dn_n = of_x.second,
                                                      .a = place(a_x_, gates_at(d, p, t)),
                                                      .d_gain = place(d_gain_x_, gradients)},
                                                .dz_sum = dz_sum(d, p)});
  products_.set_gradient(rows_, a_h(d, p, t));
  if (!token_rows_) products_.set_gradient(rows_, &a_x_[gates_at(d, p, t)]);
}

// dL/dh of t-1 = the sum over all unit blocks of da_h W_h.
void CpuRecurrence::send_state_gradient(int t, ExchangeRound& round) {
  const Span span(SpanKind::pointwise, "sum of state gradient");
  const std::size_t hidden = size(shape_.hidden), parts = products_.recurrent_parts();
  parallel_for(threads_, groups_ * parts, [&](std::size_t i) {
    const std::size_t d = i / parts;
    products_.recurrent_backward(i % parts, da_h() + gates_at(d, own_first_, t), gates_at(0, 1, 0),
                                 &d_h_of_rank_[d * rows_ * hidden]);
  });
  send_sum(state_sum_, hidden, d_h_of_rank_, d_h_, round);
}

// dL/dx of a time step, for the layer below, on all ranks that need it.
void CpuRecurrence::send_step_of_input_gradient(int t, ExchangeRound& round) {
  const Span span(SpanKind::pointwise, "input gradient");
  const std::size_t inputs = size(shape_.inputs), parts = products_.input_parts();
  parallel_for(threads_, groups_ * parts, [&](std::size_t i) {
    const std::size_t d = i / parts;
    products_.input_backward(i % parts, rows_, da_x() + gates_at(d, own_first_, t), gates_at(0, 1, 0),
                             &d_x_of_rank_[d * rows_ * inputs]);
  });
  send_sum(input_sum_, inputs, d_x_of_rank_, d_x_, round);
}

// of_rank [D, R, width] -> out: this rank's blocks of the sum over all, or all where every rank needs them.
void CpuRecurrence::send_sum(BlockSum& sum, std::size_t width, const LargeArray& of_rank,
                             std::span<float> out, ExchangeRound& round) const {
  const std::size_t of_block = width / size(shape_.tiling.blocks.count);
  sum.start(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(of_block),
            sharded() ? out : std::span<float>());
  for (std::size_t d = 0; d < groups_; ++d)
    sum.set(static_cast<int>(d), 0, static_cast<int>(rows_), &of_rank[d * rows_ * width]);
  if (sharded())
    sum.send(round);
  else
    sum.send_everywhere(round);
}

void CpuRecurrence::take_step_of_input_gradient(int t) {
  if (!sharded()) input_sum_.take_everywhere(d_x_);
  const std::size_t tiles = groups_ * output_blocks_, tile = d_x_.size() / tiles;
  for (std::size_t i = 0; i < tiles; ++i)
    std::copy_n(&d_x_[i * tile], tile, &pass_down_[(i * size(steps_) + size(t)) * tile]);
}

// dL/dx = the sum over all unit blocks of da_x W_x.
void CpuRecurrence::input_gradient(std::span<float> d_input) {
  const Span span(SpanKind::pointwise, "input gradient");
  const std::size_t inputs = size(shape_.inputs), rows = sequence_rows(), parts = products_.input_parts();
  input_sum_.start(static_cast<int>(groups_), static_cast<int>(rows),
                   shape_.inputs / shape_.tiling.blocks.count, d_input);
  d_input_of_rank_.resize(kChunkRows * inputs);
  for (std::size_t d = 0; d < groups_; ++d)
    for (std::size_t first = 0; first < rows; first += kChunkRows) {
      const std::size_t count = std::min(kChunkRows, rows - first);
      const float* da = da_x() + gates_at(d, own_first_, 0) + first * 4 * units_;
      parallel_for(threads_, parts, [&](std::size_t part) {
        products_.input_backward(part, count, da, gates_at(0, 1, 0), d_input_of_rank_.data());
      });
      input_sum_.set(static_cast<int>(d), static_cast<int>(first), static_cast<int>(count),
                     d_input_of_rank_.data());
      side_work_.advance();
    }
  input_sum_.finish();
}

void CpuRecurrence::parameter_gradients(const LstmParameters<float>& d) {
  const Span span(SpanKind::pointwise, "parameter gradients");
  const std::size_t inputs = size(shape_.inputs), width = 4 * units_;
  const std::size_t rows = sequence_rows(), step = gates_at(0, 1, 0);
  group_tree_.sum(groups_, d.W_h, [&](std::size_t group, std::span<float> d_W_h) {
    products_.weight_h_gradient(rows, da_h() + gates_at(group, own_first_, 0), step, h_before(group, 0),
                                h_after(group, 0), d_W_h.data(), threads_, side_work_.advance);
  });
  if (normalized()) {
    sum_over_groups(d_gain_h_, width, d.gain_h);
    sum_over_groups(d_gain_c_, units_, d.gain_c);
    sum_over_groups(d_bias_c_, units_, d.bias_c);
  }
  if (token_rows_) return token_rows_->finish_backward(d, side_work_.advance);
  group_tree_.sum(groups_, d.W_x, [&](std::size_t group, std::span<float> d_W_x) {
    products_.weight_x_gradient(rows, da_x() + gates_at(group, own_first_, 0), step,
                                &input_[group * rows * inputs], d_W_x.data(), threads_, side_work_.advance);
  });
  sum_over_groups(d_bias_, width, d.bias);
  if (normalized()) sum_over_groups(d_gain_x_, width, d.gain_x);
}

// [D, P or Q, width] -> this rank's blocks [K, width].
void CpuRecurrence::sum_over_groups(const Floats& of_groups, std::size_t width, std::span<float> out) const {
  const std::size_t group = of_groups.size() / groups_;
  const std::size_t first = group == out.size() ? 0 : size(shape_.tiling.blocks.first) * width;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = tree_sum(groups_, [&](std::size_t d) { return of_groups[d * group + first + i]; });
}

}  // namespace lamina
