// The time loop. Pointwise work runs over *tiles* (lane group x unit block): this rank's own blocks with the
// sharded schedule, all blocks of the layer with the replicated one; products only ever run for own blocks.
// What crosses blocks goes through RowStatistics, BlockGather and BlockSum, which are collective and keep the
// tree order. P below is the number of unit blocks of the pointwise work, K or G.
#include "kernels/cpu/recurrence.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/large_array.h"
#include "kernels/cpu/lstm_cell.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/recurrence_products.h"
#include "kernels/cpu/row_statistics.h"
#include "runtime/error.h"
#include "runtime/fault_point.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

constexpr std::size_t kChunkRows = 64;  // of a sequence, at a time

using Floats = std::vector<float>;

/// The place of element `i`; null in an array that is not used.
template <class Array>
auto* place(Array& array, std::size_t i) {
  return array.empty() ? nullptr : array.data() + i;
}

/// Mean and scale of one LN for every row of a sequence.
struct SavedStatistics {
  Floats mean, scale;

  void resize(std::size_t rows) {
    mean.resize(rows);
    scale.resize(rows);
  }
  NormalizedRows at(std::size_t row) const { return {place(mean, row), place(scale, row)}; }
  std::size_t size() const { return mean.size() + scale.size(); }
};

class CpuRecurrence final : public Recurrence {
 public:
  CpuRecurrence(const RecurrenceShape& shape, Communicator& model_axis, int threads);

  void set_parameters(const LstmParameters<const float>& parameters) override;
  void forward(const RecurrenceForward& f) override;
  void backward(const RecurrenceBackward& b) override;
  std::size_t saved_size() const override;

 private:
  bool normalized() const { return shape_.normalization == Normalization::layer; }
  bool replicated() const { return shape_.exchange == Exchange::replicated; }
  Share pointwise_share() const {
    return replicated() ? Share::of(shape_.tiling.blocks.count, 0, 1) : shape_.tiling.blocks;
  }

  // Forward.
  void check_forward(const RecurrenceForward& f) const;
  void begin_forward(const RecurrenceForward& f);
  void transform_input();
  void measure_input(std::size_t d, std::size_t p, std::size_t first_row, std::size_t rows);
  void step_forward(int t);
  void transform_state(int t);
  void measure_state(std::size_t d, std::size_t p, int t);
  void update_cell(std::size_t d, std::size_t p, int t);
  void write_output(std::size_t d, std::size_t p, int t);
  void write_last_state(const RecurrenceForward& f);

  // Backward.
  void check_backward(const RecurrenceBackward& b) const;
  void begin_backward(const RecurrenceBackward& b);
  void step_backward(int t);
  void output_backward(std::size_t d, std::size_t p, int t);
  void gates_backward(std::size_t d, std::size_t p, int t, RowStatistics::Means means);
  void normalization_backward(std::size_t d, std::size_t k, int t, RowStatistics::Means means);
  void state_gradient(int t);
  void input_gradient(std::span<float> d_input);
  void parameter_gradients(const LstmParameters<float>& d);
  void sum_over_groups(const Floats& of_groups, std::size_t width, std::span<float> out) const;

  // task(d, k) or task(d, p) over tiles, on the rank's threads.
  template <class Task>
  void for_tiles(std::size_t blocks, const Task& task) const {
    parallel_for(threads_, groups_ * blocks, [&](std::size_t i) { task(i / blocks, i % blocks); });
  }
  // task(d, block, first row, rows) over the chunks of rows of a sequence.
  template <class Task>
  void for_chunks(std::size_t blocks, const Task& task) const {
    const std::size_t rows = sequence_rows(), chunks = (rows + kChunkRows - 1) / kChunkRows;
    parallel_for(threads_, groups_ * blocks * chunks, [&](std::size_t i) {
      const std::size_t tile = i / chunks, first = i % chunks * kChunkRows;
      task(tile / blocks, tile % blocks, first, std::min(kChunkRows, rows - first));
    });
  }

  std::size_t sequence_rows() const { return size(steps_) * rows_; }
  /// Which of the P blocks is this rank's block k.
  std::size_t own(std::size_t k) const { return own_first_ + k; }
  // Tile (d, p) of [D, P, R, width], and its time step t of [D, P, steps, R, width].
  std::size_t tile(std::size_t d, std::size_t p, std::size_t width) const {
    return (d * blocks_ + p) * rows_ * width;
  }
  std::size_t at(std::size_t d, std::size_t p, int steps, int t, std::size_t width) const {
    return ((d * blocks_ + p) * size(steps) + size(t)) * rows_ * width;
  }
  std::size_t gates_at(std::size_t d, std::size_t p, int t) const { return at(d, p, steps_, t, 4 * units_); }
  std::size_t cell_at(std::size_t d, std::size_t p, int t) const { return at(d, p, steps_, t, units_); }
  std::size_t state_at(std::size_t d, std::size_t p, int t) const {  // t = 0: before the first step
    return at(d, p, steps_ + 1, t, units_);
  }
  // Rows of the statistics: of a step [D, R], kept for all steps [T, D, R]; of the input side [D, T, R]. The
  // backward sums of a step are [2, D, R], for W_h h and W_x x.
  std::size_t step_row(std::size_t d, int t) const { return (size(t) * groups_ + d) * rows_; }
  std::size_t input_row(std::size_t d, int t) const { return (d * size(steps_) + size(t)) * rows_; }

  /// W_x x, and later da_x; without LN also the gates and dz.
  LargeArray& x_side() { return normalized() ? a_x_ : gates_; }
  const float* da_h() const { return normalized() ? a_h_.data() : gates_.data(); }
  const float* da_x() const { return normalized() ? a_x_.data() : gates_.data(); }
  /// W_h h of a tile. Without LN a step's is enough.
  float* a_h(std::size_t d, std::size_t p, int t) {
    return normalized() ? &a_h_[gates_at(d, p, t)] : &a_h_[tile(d, p, 4 * units_)];
  }
  /// dz of a tile, of a step, too, with LN.
  float* dz(std::size_t d, std::size_t p, int t) {
    return normalized() ? &dz_[tile(d, p, 4 * units_)] : &gates_[gates_at(d, p, t)];
  }
  float* h_after(std::size_t d, int t) {
    return output_.data() + (d * size(steps_) + size(t)) * rows_ * size(shape_.hidden);
  }
  float* h_before(std::size_t d, int t) {
    return t == 0 ? h_first_.data() + d * rows_ * size(shape_.hidden) : h_after(d, t - 1);
  }
  /// Whether the pointwise work writes complete rows of h in place: it is done for all blocks.
  bool complete() const { return size(shape_.tiling.blocks.count) == blocks_; }
  CellTile cell_tile(std::size_t d, int t) const {
    return {rows_, units_, normalized(), lengths_.empty() ? nullptr : lengths_.data() + d * rows_, t};
  }

  RecurrenceShape shape_;
  int threads_;
  std::size_t groups_, rows_, units_;  ///< D, R, U
  std::size_t own_blocks_, blocks_;    ///< K, P
  std::size_t own_first_;
  std::unique_ptr<Communicator> self_;
  Communicator& pointwise_axis_;  ///< over which the pointwise work is split: this rank alone if replicated

  RecurrenceProducts products_;
  BlockGather gather_, h_gather_;
  BlockSum state_sum_, input_sum_;
  RowStatistics h_statistics_, c_statistics_, x_statistics_, gate_sums_;
  ArrayTree group_tree_;

  Floats gain_x_, gain_h_, bias_, gain_c_, bias_c_;  ///< [P, 4, U] or [P, U]

  // The latest forward pass; what backward() needs of it.
  int steps_ = 0;
  bool ready_for_backward_ = false;
  std::span<const float> input_;
  std::span<float> output_;
  Floats h_first_;                     ///< [D, R, H]
  std::vector<std::int32_t> lengths_;  ///< [D, R] or empty
  LargeArray gates_;                   ///< [D, P, T, R, 4U]; without LN they become dz
  LargeArray a_x_, a_h_;               ///< LN: the same; become da_x, da_h
  LargeArray c_;                       ///< [D, P, T+1, R, U]
  LargeArray s_;                       ///< [D, P, T, R, U]
  SavedStatistics of_x_, of_h_, of_c_;

  // One time step.
  LargeArray own_a_h_;      ///< [D, K, R, 4U], replicated only
  LargeArray a_h_all_;      ///< [D, G, R, 4U], replicated only
  LargeArray own_a_x_;      ///< [D, K, T, R, 4U], replicated only
  LargeArray h_;            ///< [D, P, R, U], unless complete rows are written in place
  LargeArray d_h_, d_c_;    ///< [D, P, R, U]
  LargeArray d_n_c_;        ///< [D, P, R, U]
  LargeArray dz_;           ///< LN, [D, P, R, 4U]
  LargeArray d_h_held_;     ///< [D, P, R, U]; empty where all rows are valid
  LargeArray d_h_of_rank_;  ///< [D, R, H], summed over this rank's blocks

  // Gradients.
  std::span<const float> d_output_;                            ///< [D, P, T*R, U]
  LargeArray d_output_all_;                                    ///< replicated only
  Floats d_gain_x_, d_gain_h_, d_bias_, d_gain_c_, d_bias_c_;  ///< [D, P, 4, U] or [D, P, U]
  LargeArray d_input_of_rank_;                                 ///< [rows of a chunk, I]
};

CpuRecurrence::CpuRecurrence(const RecurrenceShape& shape, Communicator& model_axis, int threads)
    : shape_(shape),
      threads_(threads),
      groups_(size(shape.tiling.groups.local)),
      rows_(size(shape.tiling.rows)),
      units_(size(shape.hidden / shape.tiling.blocks.count)),
      own_blocks_(size(shape.tiling.blocks.local)),
      blocks_(size(pointwise_share().local)),
      own_first_(replicated() ? size(shape.tiling.blocks.first) : 0),
      self_(make_self_communicator()),
      pointwise_axis_(replicated() ? *self_ : model_axis),
      products_(shape, model_axis),
      gather_(shape.tiling.blocks, model_axis),
      h_gather_(pointwise_share(), pointwise_axis_),
      state_sum_(shape.tiling.blocks, model_axis),
      input_sum_(shape.tiling.blocks, model_axis),
      h_statistics_(static_cast<int>(blocks_), pointwise_axis_),
      c_statistics_(static_cast<int>(blocks_), pointwise_axis_),
      x_statistics_(static_cast<int>(blocks_), pointwise_axis_),
      gate_sums_(static_cast<int>(blocks_), pointwise_axis_),
      group_tree_(threads) {
  check(shape.hidden % shape.tiling.blocks.count == 0, "recurrence: H must divide into unit blocks");
  const std::size_t step = groups_ * blocks_ * rows_, steps = size(shape.max_time_steps);
  gates_.resize(step * steps * 4 * units_);
  c_.resize(step * (steps + 1) * units_);
  s_.resize(step * steps * units_);
  h_first_.resize(groups_ * rows_ * size(shape.hidden));
  a_h_.resize(normalized() ? gates_.size() : step * 4 * units_);
  for (LargeArray* buffer : {&d_h_, &d_c_, &d_n_c_}) buffer->resize(step * units_);
  if (!complete()) h_.resize(step * units_);
  d_h_of_rank_.resize(h_first_.size());
  d_bias_.resize(groups_ * blocks_ * 4 * units_);
  if (replicated()) {
    own_a_h_.resize(groups_ * own_blocks_ * rows_ * 4 * units_);
    a_h_all_.resize(step * 4 * units_);
  }
  if (!normalized()) return;
  h_statistics_.start(groups_ * rows_);
  c_statistics_.start(groups_ * rows_);
  gate_sums_.start(2 * groups_ * rows_);
  a_x_.resize(gates_.size());
  dz_.resize(step * 4 * units_);
  for (SavedStatistics* of : {&of_x_, &of_h_, &of_c_}) of->resize(groups_ * steps * rows_);
  for (Floats* sum : {&d_gain_x_, &d_gain_h_}) sum->resize(d_bias_.size());
  for (Floats* sum : {&d_gain_c_, &d_bias_c_}) sum->resize(groups_ * blocks_ * units_);
}

void CpuRecurrence::set_parameters(const LstmParameters<const float>& parameters) {
  const std::size_t own_units = own_blocks_ * units_;
  check(parameters.W_x.size() == 4 * own_units * size(shape_.inputs) &&
            parameters.W_h.size() == 4 * own_units * size(shape_.hidden) &&
            parameters.bias.size() == 4 * own_units,
        "recurrence: the weights do not fit the shape");
  products_.set_weights(parameters.W_x, parameters.W_h, threads_);
  const auto keep = [&](std::span<const float> own_values, std::size_t width, Floats& all) {
    check(own_values.size() == own_blocks_ * width, "recurrence: the gains or biases do not fit the shape");
    all.assign(own_values.begin(), own_values.end());
    if (!replicated()) return;
    all.resize(blocks_ * width);
    gather_.run_blocked(1, 1, static_cast<int>(width), own_values, all);
  };
  keep(parameters.bias, 4 * units_, bias_);
  if (!normalized()) return;
  keep(parameters.gain_x, 4 * units_, gain_x_);
  keep(parameters.gain_h, 4 * units_, gain_h_);
  keep(parameters.gain_c, units_, gain_c_);
  keep(parameters.bias_c, units_, bias_c_);
}

std::size_t CpuRecurrence::saved_size() const {
  return a_x_.size() + (normalized() ? a_h_.size() : 0) + gates_.size() + c_.size() + s_.size() +
         h_first_.size() + of_x_.size() + of_h_.size() + of_c_.size();
}

// --- forward ----------------------------------------------------------------------------------------------

void CpuRecurrence::check_forward(const RecurrenceForward& f) const {
  check(!bias_.empty(), "recurrence: forward() before set_parameters()");
  check(f.time_steps >= 1 && f.time_steps <= shape_.max_time_steps, "recurrence: time steps out of range");
  const std::size_t lanes = groups_ * rows_, sequence = lanes * size(f.time_steps);
  const std::size_t hidden = size(shape_.hidden), own_units = own_blocks_ * units_;
  check(f.input.size() == sequence * size(shape_.inputs), "recurrence: input must be [D, T, R, I]");
  check(f.output.size() == sequence * hidden, "recurrence: output must be [D, T, R, H]");
  check(f.h_first.size() == lanes * hidden && f.h_last.size() == lanes * hidden,
        "recurrence: h_first and h_last must be [D, R, H]");
  check(f.c_first.size() == lanes * own_units && f.c_last.size() == lanes * own_units,
        "recurrence: c_first and c_last must be [D, K, R, U]");
  check(f.lengths.empty() || f.lengths.size() == lanes, "recurrence: lengths must be [D, R]");
}

void CpuRecurrence::forward(const RecurrenceForward& f) {
  const Span span(SpanKind::pointwise, "recurrence forward");
  check_forward(f);
  ready_for_backward_ = false;
  begin_forward(f);
  transform_input();
  for (int t = 0; t < steps_; ++t) step_forward(t);
  write_last_state(f);
  ready_for_backward_ = true;
}

void CpuRecurrence::begin_forward(const RecurrenceForward& f) {
  steps_ = f.time_steps;
  input_ = f.input;
  output_ = f.output;
  std::ranges::copy(f.h_first, h_first_.begin());
  lengths_.assign(f.lengths.begin(), f.lengths.end());

  LargeArray& c_first = d_c_;  // free before the backward pass
  if (replicated())
    gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(units_),
                        f.c_first, c_first);
  else
    std::ranges::copy(f.c_first, c_first.data());
  const std::size_t hidden = size(shape_.hidden), first_unit = size(pointwise_share().first) * units_;
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) {
    std::copy_n(&c_first[tile(d, p, units_)], rows_ * units_, &c_[state_at(d, p, 0)]);
    if (complete()) return;
    for (std::size_t row = 0; row < rows_; ++row)
      std::copy_n(&h_first_[(d * rows_ + row) * hidden + first_unit + p * units_], units_,
                  &h_[tile(d, p, units_) + row * units_]);
  });
}

// W_x x of all time steps, and its statistics: one product and one exchange.
void CpuRecurrence::transform_input() {
  const Span span(SpanKind::pointwise, "input side");
  const std::size_t width = 4 * units_, tile = sequence_rows() * width;
  if (replicated()) own_a_x_.resize(groups_ * own_blocks_ * tile);
  if (normalized()) x_statistics_.start(groups_ * sequence_rows());
  float* own_a_x = replicated() ? own_a_x_.data() : x_side().data();
  products_.set_input(groups_ * sequence_rows(), input_.data(), threads_);
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

// Eq. 20-22: z = LN(W_h h) + LN(W_x x) + b; c = f c + i g; h = o tanh(LN(c)).
void CpuRecurrence::step_forward(int t) {
  const Span span(SpanKind::pointwise, "time step");
  transform_state(t);
  if (normalized())
    h_statistics_.merge_moments(4 * units_, shape_.epsilon, &of_h_.mean[step_row(0, t)],
                                &of_h_.scale[step_row(0, t)]);
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) { update_cell(d, p, t); });
  if (normalized())
    c_statistics_.merge_moments(units_, shape_.epsilon, &of_c_.mean[step_row(0, t)],
                                &of_c_.scale[step_row(0, t)]);
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) { write_output(d, p, t); });
  fault_point(FaultPoint::forward_exchange);
  if (complete()) return;
  const std::size_t step = rows_ * size(shape_.hidden);
  h_gather_.run(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(units_), h_,
                h_after(0, t), size(steps_) * step);
}

void CpuRecurrence::transform_state(int t) {
  const std::size_t width = 4 * units_;
  for (std::size_t d = 0; d < groups_; ++d) products_.set_state(d, h_before(d, t));
  for_tiles(own_blocks_, [&](std::size_t d, std::size_t k) {
    products_.recurrent(d, k, replicated() ? &own_a_h_[(d * own_blocks_ + k) * rows_ * width] : a_h(d, k, t));
    if (!replicated()) measure_state(d, k, t);
  });
  if (!replicated()) return;
  gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(width), own_a_h_,
                      a_h_all_);
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) {
    std::copy_n(&a_h_all_[tile(d, p, width)], rows_ * width, a_h(d, p, t));
    measure_state(d, p, t);
  });
}

void CpuRecurrence::measure_state(std::size_t d, std::size_t p, int t) {
  if (normalized())
    row_moments(a_h(d, p, t), rows_, 4 * units_, h_statistics_.first(p) + d * rows_,
                h_statistics_.second(p) + d * rows_);
}

void CpuRecurrence::update_cell(std::size_t d, std::size_t p, int t) {
  const Span span(SpanKind::pointwise, "gates");
  const std::size_t i = gates_at(d, p, t), width = 4 * units_;
  float* c = &c_[state_at(d, p, t + 1)];
  lstm_gates(cell_tile(d, t), {.a_h = a_h(d, p, t),
                               .a_x = &x_side()[i],
                               .of_h = of_h_.at(step_row(d, t)),
                               .of_x = of_x_.at(input_row(d, t)),
                               .gain_h = place(gain_h_, p * width),
                               .gain_x = place(gain_x_, p * width),
                               .bias = bias_.data() + p * width,
                               .c_before = &c_[state_at(d, p, t)],
                               .gates = &gates_[i],
                               .c = c});
  if (normalized())
    row_moments(c, rows_, units_, c_statistics_.first(p) + d * rows_, c_statistics_.second(p) + d * rows_);
}

void CpuRecurrence::write_output(std::size_t d, std::size_t p, int t) {
  float* h = complete() ? h_after(d, t) + p * units_ : &h_[tile(d, p, units_)];
  lstm_output(cell_tile(d, t), {.gates = &gates_[gates_at(d, p, t)],
                                .c = &c_[state_at(d, p, t + 1)],
                                .of_c = of_c_.at(step_row(d, t)),
                                .gain_c = place(gain_c_, p * units_),
                                .bias_c = place(bias_c_, p * units_),
                                .s = &s_[cell_at(d, p, t)],
                                .h_before = complete() ? h_before(d, t) + p * units_ : h,
                                .h = h,
                                .h_stride = complete() ? size(shape_.hidden) : units_});
}

void CpuRecurrence::write_last_state(const RecurrenceForward& f) {
  const std::size_t step = rows_ * size(shape_.hidden), state = rows_ * units_;
  for (std::size_t d = 0; d < groups_; ++d) {
    std::copy_n(h_before(d, steps_), step, &f.h_last[d * step]);
    for (std::size_t k = 0; k < own_blocks_; ++k)
      std::copy_n(&c_[state_at(d, own(k), steps_)], state, &f.c_last[(d * own_blocks_ + k) * state]);
  }
}

// --- backward ---------------------------------------------------------------------------------------------

void CpuRecurrence::check_backward(const RecurrenceBackward& b) const {
  check(ready_for_backward_, "recurrence: backward() needs a forward() of its own");
  const std::size_t rows = groups_ * sequence_rows(), own_units = own_blocks_ * units_;
  check(b.d_output.size() == rows * own_units, "recurrence: d_output must be [D, K, T*R, U]");
  check(b.d_input.empty() || shape_.inputs % shape_.tiling.blocks.count == 0,
        "recurrence: d_input needs inputs that divide into blocks");
  const auto& d = b.d_parameters;
  check(d.W_x.size() == 4 * own_units * size(shape_.inputs) &&
            d.W_h.size() == 4 * own_units * size(shape_.hidden) && d.bias.size() == 4 * own_units,
        "recurrence: the gradients do not fit the shape");
  if (normalized())
    check(d.gain_x.size() == 4 * own_units && d.gain_h.size() == 4 * own_units &&
              d.gain_c.size() == own_units && d.bias_c.size() == own_units,
          "recurrence: the gradients of gains or biases do not fit the shape");
}

void CpuRecurrence::backward(const RecurrenceBackward& b) {
  const Span span(SpanKind::pointwise, "recurrence backward");
  check_backward(b);
  begin_backward(b);
  for (int t = steps_ - 1; t >= 0; --t) step_backward(t);
  parameter_gradients(b.d_parameters);
  if (!b.d_input.empty()) input_gradient(b.d_input);
  ready_for_backward_ = false;
}

void CpuRecurrence::begin_backward(const RecurrenceBackward& b) {
  d_output_ = b.d_output;
  if (replicated()) {
    d_output_all_.resize(b.d_output.size() / own_blocks_ * blocks_);
    gather_.run_blocked(static_cast<int>(groups_), static_cast<int>(sequence_rows()),
                        static_cast<int>(units_), b.d_output, d_output_all_);
    d_output_ = d_output_all_;
  }
  d_h_held_.resize(lengths_.empty() ? 0 : d_h_.size());
  for (LargeArray* zeroed : {&d_h_, &d_h_held_, &d_c_}) std::fill_n(zeroed->data(), zeroed->size(), 0.0f);
  for (Floats* zeroed : {&d_gain_x_, &d_gain_h_, &d_bias_, &d_gain_c_, &d_bias_c_})
    std::ranges::fill(*zeroed, 0.0f);
}

// The chain rule back through step_forward; each LN needs two sums over its vector.
void CpuRecurrence::step_backward(int t) {
  const Span span(SpanKind::pointwise, "time step backward");
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) { output_backward(d, p, t); });
  RowStatistics::Means means;
  if (normalized()) means = c_statistics_.merge_sums(size(shape_.hidden));
  for_tiles(blocks_, [&](std::size_t d, std::size_t p) { gates_backward(d, p, t, means.from(d * rows_)); });
  if (normalized()) {
    means = gate_sums_.merge_sums(4 * size(shape_.hidden));
    for_tiles(own_blocks_, [&](std::size_t d, std::size_t k) { normalization_backward(d, k, t, means); });
  }
  if (t > 0) state_gradient(t);
}

void CpuRecurrence::output_backward(std::size_t d, std::size_t p, int t) {
  const Span span(SpanKind::pointwise, "output backward");
  lstm_output_backward(cell_tile(d, t),
                       {.d_output = &d_output_[cell_at(d, p, t)],
                        .d_h = &d_h_[tile(d, p, units_)],
                        .d_h_held = lengths_.empty() ? nullptr : &d_h_held_[tile(d, p, units_)],
                        .c = &c_[state_at(d, p, t + 1)],
                        .of_c = of_c_.at(step_row(d, t)),
                        .gain_c = place(gain_c_, p * units_),
                        .gates = &gates_[gates_at(d, p, t)],
                        .s = &s_[cell_at(d, p, t)],
                        .dz = dz(d, p, t),
                        .d_n_c = &d_n_c_[tile(d, p, units_)],
                        .sum_dn = c_statistics_.first(p) + d * rows_,
                        .sum_dn_n = c_statistics_.second(p) + d * rows_,
                        .d_gain_c = place(d_gain_c_, (d * blocks_ + p) * units_),
                        .d_bias_c = place(d_bias_c_, (d * blocks_ + p) * units_)});
}

void CpuRecurrence::gates_backward(std::size_t d, std::size_t p, int t, RowStatistics::Means means) {
  const Span span(SpanKind::pointwise, "gates backward");
  const std::size_t i = gates_at(d, p, t), width = 4 * units_, x_rows = groups_ * rows_;
  const auto sums = [&](std::size_t row) -> NormalizationSums {
    return {gate_sums_.first(p) + row, gate_sums_.second(p) + row};
  };
  lstm_gates_backward(cell_tile(d, t), {.d_n_c = &d_n_c_[tile(d, p, units_)],
                                        .mean_dn = means.first,
                                        .mean_dn_n = means.second,
                                        .c = &c_[state_at(d, p, t + 1)],
                                        .c_before = &c_[state_at(d, p, t)],
                                        .of_c = of_c_.at(step_row(d, t)),
                                        .d_c = &d_c_[tile(d, p, units_)],
                                        .gates = &gates_[i],
                                        .dz = dz(d, p, t),
                                        .a_h = a_h(d, p, t),
                                        .a_x = &x_side()[i],
                                        .of_h = of_h_.at(step_row(d, t)),
                                        .of_x = of_x_.at(input_row(d, t)),
                                        .gain_h = place(gain_h_, p * width),
                                        .gain_x = place(gain_x_, p * width),
                                        .h = sums(d * rows_),
                                        .x = sums(x_rows + d * rows_),
                                        .d_bias = &d_bias_[(d * blocks_ + p) * width]});
  if (!normalized()) products_.set_gradient(rows_, dz(d, p, t));
}

void CpuRecurrence::normalization_backward(std::size_t d, std::size_t k, int t, RowStatistics::Means means) {
  const std::size_t p = own(k), width = 4 * units_, gradients = (d * blocks_ + p) * width;
  const RowStatistics::Means of_h = means.from(d * rows_), of_x = means.from((groups_ + d) * rows_);
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
                                                      .a = &a_x_[gates_at(d, p, t)],
                                                      .d_gain = &d_gain_x_[gradients]},
                                                .d_bias = &d_bias_[gradients]});
  products_.set_gradient(rows_, a_h(d, p, t));
  products_.set_gradient(rows_, &a_x_[gates_at(d, p, t)]);
}

// dL/dh of t-1 = the sum over all unit blocks of da_h W_h.
void CpuRecurrence::state_gradient(int t) {
  const Span span(SpanKind::pointwise, "sum of state gradient");
  const std::size_t hidden = size(shape_.hidden), parts = products_.recurrent_parts();
  parallel_for(threads_, groups_ * parts, [&](std::size_t i) {
    const std::size_t d = i / parts;
    products_.recurrent_backward(i % parts, da_h() + gates_at(d, own_first_, t), gates_at(0, 1, 0),
                                 &d_h_of_rank_[d * rows_ * hidden]);
  });
  state_sum_.start(static_cast<int>(groups_), static_cast<int>(rows_), static_cast<int>(units_),
                   replicated() ? std::span<float>() : d_h_);
  for (std::size_t d = 0; d < groups_; ++d)
    state_sum_.set(static_cast<int>(d), 0, static_cast<int>(rows_), &d_h_of_rank_[d * rows_ * hidden]);
  if (replicated())
    state_sum_.finish_everywhere(d_h_);
  else
    state_sum_.finish();
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
    }
  input_sum_.finish();
}

void CpuRecurrence::parameter_gradients(const LstmParameters<float>& d) {
  const Span span(SpanKind::pointwise, "parameter gradients");
  const std::size_t inputs = size(shape_.inputs), width = 4 * units_;
  const std::size_t rows = sequence_rows(), step = gates_at(0, 1, 0);
  group_tree_.sum(groups_, d.W_h, [&](std::size_t group, std::span<float> d_W_h) {
    products_.weight_h_gradient(rows, da_h() + gates_at(group, own_first_, 0), step, h_before(group, 0),
                                h_after(group, 0), d_W_h.data(), threads_);
  });
  group_tree_.sum(groups_, d.W_x, [&](std::size_t group, std::span<float> d_W_x) {
    products_.weight_x_gradient(rows, da_x() + gates_at(group, own_first_, 0), step,
                                &input_[group * rows * inputs], d_W_x.data(), threads_);
  });
  sum_over_groups(d_bias_, width, d.bias);
  if (!normalized()) return;
  sum_over_groups(d_gain_x_, width, d.gain_x);
  sum_over_groups(d_gain_h_, width, d.gain_h);
  sum_over_groups(d_gain_c_, units_, d.gain_c);
  sum_over_groups(d_bias_c_, units_, d.bias_c);
}

// [D, P, width] -> this rank's blocks [K, width].
void CpuRecurrence::sum_over_groups(const Floats& of_groups, std::size_t width, std::span<float> out) const {
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] =
        tree_sum(groups_, [&](std::size_t d) { return of_groups[(d * blocks_ + own_first_) * width + i]; });
}

}  // namespace

std::unique_ptr<Recurrence> make_cpu_recurrence(const RecurrenceShape& shape, Communicator& model_axis,
                                                int threads) {
  return std::make_unique<CpuRecurrence>(shape, model_axis, threads);
}

}  // namespace lamina
