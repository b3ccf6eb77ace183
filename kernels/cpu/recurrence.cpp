// The recurrence of eq. 17-22 of arXiv:1607.06450 over tiles (lane group x unit block).
//
//   a_x = W_x x for all steps            n_x = LN(a_x), x_term = gain_x n_x + bias
//   per step: a_h = W_h h                n_h = LN(a_h), z = gain_h n_h + x_term
//             f, i, o = σ(z), g = tanh(z);  c = f c + i g;  h = o tanh(LN(c))
//
// A rank multiplies for its own K blocks. Pointwise work is done for P blocks: its own (sharded), or all of
// them (replicated: P = G, so that statistics need no exchange).
#include "kernels/cpu/recurrence.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/lstm_rows.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/statistics.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using lstm_rows::Moments;
using lstm_rows::Normalizer;
using lstm_rows::Sums;

std::size_t size(int n) { return static_cast<std::size_t>(n); }
std::int64_t length(std::size_t n) { return static_cast<std::int64_t>(n); }

/// Rows of an input-gradient product: part of the calls' shapes, whatever the grid.
constexpr std::size_t kChunkRows = 64;

/// The weights of one unit block, laid out for both directions.
struct BlockWeights {
  PackedMatrix W_x_transposed, W_h_transposed;  ///< [I, 4U], [H, 4U]
  PackedMatrix W_x, W_h;                        ///< [4U, I], [4U, H]
};

/// Gains and biases of the pointwise blocks.
struct PointwiseParameters {
  std::vector<float> gain_x, gain_h, bias;  ///< [P, 4U]
  std::vector<float> gain_c, bias_c;        ///< [P, U]
};

class CpuRecurrence final : public Recurrence {
 public:
  CpuRecurrence(const RecurrenceShape& shape, Communicator& model_axis, int threads);

  void set_parameters(const LstmParameters<const float>& parameters) override;
  void forward(const RecurrenceForward& f) override;
  void backward(const RecurrenceBackward& b) override;
  std::size_t saved_size() const override;

 private:
  bool replicated() const { return pointwise_blocks_ != blocks_; }
  bool normalizes() const { return shape_.normalization == Normalization::layer; }

  // Places of a row: group d, pointwise block p, time step t, lane r.
  std::size_t tile(std::size_t d, std::size_t p) const { return d * pointwise_blocks_ + p; }
  std::size_t gate_row(std::size_t d, std::size_t p, std::size_t t, std::size_t r) const {
    return ((tile(d, p) * steps_ + t) * rows_ + r) * 4 * units_;
  }
  std::size_t unit_row(std::size_t d, std::size_t p, std::size_t t, std::size_t r) const {
    return ((tile(d, p) * steps_ + t) * rows_ + r) * units_;
  }
  std::size_t state_row(std::size_t d, std::size_t p, std::size_t r) const {
    return (tile(d, p) * rows_ + r) * units_;
  }
  std::size_t lane(std::size_t d, std::size_t r) const { return d * rows_ + r; }
  std::size_t step_lane(std::size_t t, std::size_t d, std::size_t r) const {
    return (t * groups_ + d) * rows_ + r;
  }
  /// h at the end of step t - 1, [R, H]; t = 0: the first state.
  float* h_before(std::size_t d, std::size_t t) {
    return &history_[(d * (steps_ + 1) + t) * rows_ * hidden_];
  }
  const float* c_before(std::size_t d, std::size_t p, std::size_t t, std::size_t r) const {
    return t == 0 ? &c_first_[state_row(d, p, r)] : &c_[unit_row(d, p, t - 1, r)];
  }
  bool valid(std::size_t t, std::size_t d, std::size_t r) const {
    return lengths_.empty() || length(t) < lengths_[lane(d, r)];
  }

  /// work(d, p) for every pointwise tile, work(d, k) for every tile of this rank's own blocks.
  template <class Work>
  void for_tiles(std::size_t blocks, const Work& work) {
    parallel_for(threads_, groups_ * blocks, [&](std::size_t i) { work(i / blocks, i % blocks); });
  }

  void begin(const RecurrenceForward& f);
  void make_products();
  void project_inputs(std::span<const float> input);
  void normalize_inputs();
  void step_forward(std::size_t t);
  void multiply_h(std::size_t t);
  void normalize_h(std::size_t t);
  void compute_gates(std::size_t t);
  void compute_output(std::size_t t);
  void copy_masked_output(std::size_t t);
  void finish_forward(const RecurrenceForward& f);

  void begin_backward(const RecurrenceBackward& b);
  void step_backward(std::size_t t);
  void output_gradient(std::size_t t);
  void gate_gradient(std::size_t t);
  void h_gradient(std::size_t t);
  void clear_masked(std::size_t d, std::size_t p, std::size_t t, std::size_t r);
  void finish_inputs();
  void weight_gradients(const RecurrenceBackward& b);
  void input_gradient(std::span<float> d_input);
  void vector_gradients(const LstmParameters<float>& d);

  RecurrenceShape shape_;
  Communicator& model_axis_;
  int threads_;
  std::size_t groups_, rows_, units_, hidden_, inputs_;  ///< D, R, U, H, I
  std::size_t blocks_, pointwise_blocks_;                ///< K, P
  std::size_t own_first_;                                ///< this rank's first block among the pointwise ones
  std::size_t steps_ = 0;                                ///< T of the latest forward()

  std::vector<BlockWeights> weights_;  ///< [K]
  PointwiseParameters parameters_;
  std::map<std::pair<std::size_t, std::size_t>, PackedGemm> forward_products_;   ///< by rows and inputs
  std::map<std::pair<std::size_t, std::size_t>, PackedGemm> backward_products_;  ///< by rows and outputs
  std::map<std::pair<std::size_t, std::size_t>, Gemm> weight_products_;          ///< by T*R and inputs
  BlockGather gather_;
  BlockSum sum_;
  Statistics statistics_;
  ArrayTree tree_;

  // Kept for the backward pass. Rows are [D, P, T, R]; normalizers [T, D, R].
  std::span<const float> input_;
  std::vector<std::int32_t> lengths_;
  std::vector<float> history_;       ///< [D, T+1, R, H]
  std::vector<float> a_x_, a_h_;     ///< [.., 4U]: pre-activations, normalized in place, then their gradients
  std::vector<float> gates_;         ///< [.., 4U], then dz
  std::vector<float> c_, squashed_;  ///< [.., U]
  std::vector<float> c_first_;       ///< [D, P, R, U]
  std::vector<Normalizer> norm_x_, norm_h_, norm_c_;

  // Scratch of forward().
  std::vector<float> x_term_;          ///< [D, P, T, R, 4U]
  std::vector<float> own_, gathered_;  ///< this rank's part of an exchange, and the whole
  std::vector<float> h_;               ///< [D, P, R, U]
  std::vector<Moments> moments_;       ///< [rows, P]
  // Scratch of backward().
  std::vector<float> d_output_;                     ///< [D, P, T*R, U]
  std::vector<float> dh_, d_c_, dn_, d_o_;          ///< [D, P, R, U]
  std::vector<float> partials_;                     ///< [D, K, R, H]
  std::vector<std::vector<float>> chunk_partials_;  ///< per thread, [K, chunk, I]
  std::vector<Sums> sums_, means_, input_means_;
  std::vector<float> d_gain_x_, d_gain_h_, d_bias_, d_gain_c_, d_bias_c_;  ///< [D, P, ..]
};

CpuRecurrence::CpuRecurrence(const RecurrenceShape& shape, Communicator& model_axis, int threads)
    : shape_(shape),
      model_axis_(model_axis),
      threads_(threads),
      groups_(size(shape.tiling.groups.local)),
      rows_(size(shape.tiling.rows)),
      units_(size(shape.hidden / shape.tiling.blocks.count)),
      hidden_(size(shape.hidden)),
      inputs_(size(shape.inputs)),
      blocks_(size(shape.tiling.blocks.local)),
      pointwise_blocks_(shape.exchange == Exchange::replicated ? size(shape.tiling.blocks.count) : blocks_),
      own_first_(replicated() ? size(shape.tiling.blocks.first) : 0),
      gather_(shape.tiling.blocks, model_axis),
      sum_(shape.tiling.blocks, model_axis),
      statistics_(static_cast<int>(pointwise_blocks_), replicated() ? nullptr : &model_axis),
      tree_(threads),
      chunk_partials_(size(threads)) {
  check(shape.hidden % shape.tiling.blocks.count == 0, "recurrence: the units must divide into blocks");
  for (std::size_t k = 0; k < blocks_; ++k) {
    const std::int64_t n = length(4 * units_);
    weights_.push_back({PackedMatrix(shape.inputs, n), PackedMatrix(shape.hidden, n),
                        PackedMatrix(n, shape.inputs), PackedMatrix(n, shape.hidden)});
  }
}

void CpuRecurrence::set_parameters(const LstmParameters<const float>& p) {
  const std::size_t gate_rows = 4 * units_;
  check(p.W_x.size() == blocks_ * gate_rows * inputs_ && p.W_h.size() == blocks_ * gate_rows * hidden_,
        "recurrence: W_x must be [K, 4, U, I], W_h [K, 4, U, H]");
  parallel_for(threads_, blocks_, [&](std::size_t k) {
    const float* W_x = &p.W_x[k * gate_rows * inputs_];
    const float* W_h = &p.W_h[k * gate_rows * hidden_];
    weights_[k].W_x_transposed.set(W_x, {.row = 1, .column = shape_.inputs});
    weights_[k].W_h_transposed.set(W_h, {.row = 1, .column = shape_.hidden});
    weights_[k].W_x.set(W_x, {.row = shape_.inputs, .column = 1});
    weights_[k].W_h.set(W_h, {.row = shape_.hidden, .column = 1});
  });

  const auto complete = [&](std::span<const float> own, std::vector<float>& all) {
    all.assign(own.begin(), own.end());
    if (!replicated()) return;
    all.resize(own.size() * size(model_axis_.size()));
    model_axis_.all_gather(own, std::span(all));
  };
  complete(p.bias, parameters_.bias);
  if (!normalizes()) return;
  complete(p.gain_x, parameters_.gain_x);
  complete(p.gain_h, parameters_.gain_h);
  complete(p.gain_c, parameters_.gain_c);
  complete(p.bias_c, parameters_.bias_c);
}

// --- forward --------------------------------------------------------------------------------------------

void CpuRecurrence::forward(const RecurrenceForward& f) {
  begin(f);
  project_inputs(f.input);
  normalize_inputs();
  for (std::size_t t = 0; t < steps_; ++t) step_forward(t);
  finish_forward(f);
}

void CpuRecurrence::begin(const RecurrenceForward& f) {
  check(f.time_steps >= 1 && f.time_steps <= shape_.max_time_steps, "recurrence: time steps out of range");
  steps_ = size(f.time_steps);
  const std::size_t lanes = groups_ * rows_, all_rows = lanes * pointwise_blocks_ * steps_;
  check(f.input.size() == lanes * steps_ * inputs_, "recurrence: input must be [D, T, R, I]");
  check(f.output.size() == lanes * steps_ * hidden_, "recurrence: output must be [D, T, R, H]");
  check(f.h_first.size() == lanes * hidden_ && f.h_last.size() == f.h_first.size(),
        "recurrence: h_first and h_last must be [D, R, H]");
  check(f.c_first.size() == lanes * blocks_ * units_ && f.c_last.size() == f.c_first.size(),
        "recurrence: c_first and c_last must be [D, K, R, U]");
  check(f.lengths.empty() || f.lengths.size() == lanes, "recurrence: lengths must be [D, R] or empty");

  input_ = f.input;
  lengths_.assign(f.lengths.begin(), f.lengths.end());
  history_.resize(lanes * (steps_ + 1) * hidden_);
  for (auto* rows : {&a_x_, &a_h_, &gates_, &x_term_}) rows->resize(all_rows * 4 * units_);
  for (auto* rows : {&c_, &squashed_}) rows->resize(all_rows * units_);
  for (auto* norms : {&norm_x_, &norm_h_, &norm_c_}) norms->resize(lanes * steps_);
  for (auto* state : {&c_first_, &h_}) state->resize(lanes * pointwise_blocks_ * units_);
  make_products();

  for (std::size_t d = 0; d < groups_; ++d)
    std::copy_n(&f.h_first[d * rows_ * hidden_], rows_ * hidden_, h_before(d, 0));
  if (replicated())
    gather_.run_blocked(shape_.tiling.groups.local, shape_.tiling.rows, static_cast<int>(units_), f.c_first,
                        c_first_);
  else
    std::copy(f.c_first.begin(), f.c_first.end(), c_first_.begin());
}

// One primitive per shape, made before threads ask for them.
void CpuRecurrence::make_products() {
  const std::size_t all = steps_ * rows_;
  const std::int64_t n = length(4 * units_), H = shape_.hidden, I = shape_.inputs;
  forward_products_.try_emplace({all, inputs_}, length(all), n, I, I, n);
  forward_products_.try_emplace({rows_, hidden_}, length(rows_), n, H, H, n);
  backward_products_.try_emplace({rows_, hidden_}, length(rows_), H, n, n, H);
  for (const std::size_t chunk : {std::min(all, kChunkRows), all % kChunkRows})
    if (chunk > 0) backward_products_.try_emplace({chunk, inputs_}, length(chunk), I, n, n, I);
  for (const std::int64_t width : {H, I})
    weight_products_.try_emplace({all, size(static_cast<int>(width))},
                                 GemmShape{.m = n,
                                           .n = width,
                                           .k = length(all),
                                           .a = {.row = 1, .column = n},
                                           .b = {.row = width, .column = 1},
                                           .c_row = width});
}

// a_x = W_x x, all time steps at once.
void CpuRecurrence::project_inputs(std::span<const float> input) {
  const std::size_t all = steps_ * rows_;
  const PackedGemm& product = forward_products_.at({all, inputs_});
  if (replicated()) own_.resize(groups_ * blocks_ * all * 4 * units_);
  std::vector<float>& out = replicated() ? own_ : a_x_;
  for_tiles(blocks_, [&](std::size_t d, std::size_t k) {
    product.run(&input[d * all * inputs_], weights_[k].W_x_transposed,
                &out[(d * blocks_ + k) * all * 4 * units_]);
  });
  if (replicated())
    gather_.run_blocked(shape_.tiling.groups.local, static_cast<int>(all), static_cast<int>(4 * units_), own_,
                        a_x_);
}

// x_term = gain_x LN(a_x) + bias.
void CpuRecurrence::normalize_inputs() {
  const std::size_t P = pointwise_blocks_, width = 4 * units_;
  if (normalizes()) {
    moments_.resize(steps_ * groups_ * rows_ * P);
    for_tiles(P, [&](std::size_t d, std::size_t p) {
      for (std::size_t t = 0; t < steps_; ++t)
        for (std::size_t r = 0; r < rows_; ++r)
          moments_[step_lane(t, d, r) * P + p] = lstm_rows::moments(&a_x_[gate_row(d, p, t, r)], width);
    });
    statistics_.normalizers(moments_, width, shape_.epsilon, norm_x_);
  }
  for_tiles(P, [&](std::size_t d, std::size_t p) {
    const float* bias = &parameters_.bias[p * width];
    for (std::size_t t = 0; t < steps_; ++t)
      for (std::size_t r = 0; r < rows_; ++r) {
        float* a = &a_x_[gate_row(d, p, t, r)];
        float* out = &x_term_[gate_row(d, p, t, r)];
        if (normalizes())
          lstm_rows::normalize(norm_x_[step_lane(t, d, r)], &parameters_.gain_x[p * width], bias, a, out,
                               width);
        else
          std::transform(a, a + width, bias, out, std::plus<>());
      }
  });
}

void CpuRecurrence::step_forward(std::size_t t) {
  multiply_h(t);
  if (normalizes()) normalize_h(t);
  compute_gates(t);
  compute_output(t);
}

// a_h = W_h h.
void CpuRecurrence::multiply_h(std::size_t t) {
  const std::size_t tile_size = rows_ * 4 * units_;
  const PackedGemm& product = forward_products_.at({rows_, hidden_});
  if (replicated()) own_.resize(groups_ * blocks_ * tile_size);
  for_tiles(blocks_, [&](std::size_t d, std::size_t k) {
    float* out = replicated() ? &own_[(d * blocks_ + k) * tile_size] : &a_h_[gate_row(d, k, t, 0)];
    product.run(h_before(d, t), weights_[k].W_h_transposed, out);
  });
  if (!replicated()) return;

  gathered_.resize(groups_ * pointwise_blocks_ * tile_size);
  gather_.run_blocked(shape_.tiling.groups.local, shape_.tiling.rows, static_cast<int>(4 * units_),
                      std::span(own_).first(groups_ * blocks_ * tile_size),
                      std::span(gathered_).first(groups_ * pointwise_blocks_ * tile_size));
  for (std::size_t d = 0; d < groups_; ++d)
    for (std::size_t p = 0; p < pointwise_blocks_; ++p)
      std::copy_n(&gathered_[tile(d, p) * tile_size], tile_size, &a_h_[gate_row(d, p, t, 0)]);
}

void CpuRecurrence::normalize_h(std::size_t t) {
  const std::size_t P = pointwise_blocks_, lanes = groups_ * rows_;
  moments_.resize(lanes * P);
  for_tiles(P, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r)
      moments_[lane(d, r) * P + p] = lstm_rows::moments(&a_h_[gate_row(d, p, t, r)], 4 * units_);
  });
  statistics_.normalizers(moments_, 4 * units_, shape_.epsilon, std::span(norm_h_).subspan(t * lanes, lanes));
}

// z = gain_h n_h + x_term, gates, c = f c + i g; masked lanes keep their c.
void CpuRecurrence::compute_gates(std::size_t t) {
  const std::size_t P = pointwise_blocks_;
  moments_.resize(groups_ * rows_ * P);
  for_tiles(P, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r) {
      const std::size_t gates = gate_row(d, p, t, r);
      float* c = &c_[unit_row(d, p, t, r)];
      lstm_rows::gates_forward({.norm = norm_h_[step_lane(t, d, r)],
                                .gain = normalizes() ? &parameters_.gain_h[p * 4 * units_] : nullptr,
                                .x_term = &x_term_[gates],
                                .c_before = c_before(d, p, t, r),
                                .a_h = &a_h_[gates],
                                .gates = &gates_[gates],
                                .c = c},
                               units_);
      if (!valid(t, d, r)) std::copy_n(c_before(d, p, t, r), units_, c);
      if (normalizes()) moments_[lane(d, r) * P + p] = lstm_rows::moments(c, units_);
    }
  });
}

// h = o tanh(LN(c)), then on every rank; masked lanes keep their h.
void CpuRecurrence::compute_output(std::size_t t) {
  const std::size_t lanes = groups_ * rows_;
  if (normalizes())
    statistics_.normalizers(moments_, units_, shape_.epsilon, std::span(norm_c_).subspan(t * lanes, lanes));
  for_tiles(pointwise_blocks_, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r)
      lstm_rows::output_forward({.norm = norm_c_[step_lane(t, d, r)],
                                 .gain = normalizes() ? &parameters_.gain_c[p * units_] : nullptr,
                                 .bias = normalizes() ? &parameters_.bias_c[p * units_] : nullptr,
                                 .c = &c_[unit_row(d, p, t, r)],
                                 .o = &gates_[gate_row(d, p, t, r) + 2 * units_],
                                 .squashed = &squashed_[unit_row(d, p, t, r)],
                                 .h = &h_[state_row(d, p, r)]},
                                units_);
  });

  const std::size_t stride = (steps_ + 1) * rows_ * hidden_;
  if (!replicated()) {
    gather_.run(shape_.tiling.groups.local, shape_.tiling.rows, static_cast<int>(units_), h_,
                h_before(0, t + 1), stride);
  } else {
    for (std::size_t d = 0; d < groups_; ++d)
      for (std::size_t p = 0; p < pointwise_blocks_; ++p)
        for (std::size_t r = 0; r < rows_; ++r)
          std::copy_n(&h_[state_row(d, p, r)], units_, h_before(d, t + 1) + r * hidden_ + p * units_);
  }
  copy_masked_output(t);
}

void CpuRecurrence::copy_masked_output(std::size_t t) {
  for (std::size_t d = 0; d < groups_; ++d)
    for (std::size_t r = 0; r < rows_; ++r)
      if (!valid(t, d, r))
        std::copy_n(h_before(d, t) + r * hidden_, hidden_, h_before(d, t + 1) + r * hidden_);
}

void CpuRecurrence::finish_forward(const RecurrenceForward& f) {
  const std::size_t state = rows_ * hidden_;
  for (std::size_t d = 0; d < groups_; ++d) {
    std::copy_n(h_before(d, 1), steps_ * state, &f.output[d * steps_ * state]);
    std::copy_n(h_before(d, steps_), state, &f.h_last[d * state]);
    for (std::size_t k = 0; k < blocks_; ++k)
      std::copy_n(&c_[unit_row(d, own_first_ + k, steps_ - 1, 0)], rows_ * units_,
                  &f.c_last[(d * blocks_ + k) * rows_ * units_]);
  }
}

// --- backward -------------------------------------------------------------------------------------------

void CpuRecurrence::backward(const RecurrenceBackward& b) {
  begin_backward(b);
  for (std::size_t t = steps_; t-- > 0;) step_backward(t);
  if (normalizes()) finish_inputs();
  weight_gradients(b);
  vector_gradients(b.d_parameters);
  if (!b.d_input.empty()) input_gradient(b.d_input);
}

void CpuRecurrence::begin_backward(const RecurrenceBackward& b) {
  const std::size_t lanes = groups_ * rows_, P = pointwise_blocks_;
  check(steps_ > 0 && b.d_output.size() == lanes * steps_ * blocks_ * units_,
        "recurrence: backward() follows forward(), d_output must be [D, K, T*R, U]");
  d_output_.resize(lanes * steps_ * P * units_);
  if (replicated())
    gather_.run_blocked(shape_.tiling.groups.local, static_cast<int>(steps_ * rows_),
                        static_cast<int>(units_), b.d_output, d_output_);
  else
    std::copy(b.d_output.begin(), b.d_output.end(), d_output_.begin());

  for (auto* state : {&dh_, &d_c_, &dn_, &d_o_}) state->assign(lanes * P * units_, 0.0f);
  sums_.resize(lanes * P);
  means_.assign(lanes, {});
  for (auto* sum : {&d_gain_x_, &d_gain_h_, &d_bias_}) sum->assign(groups_ * P * 4 * units_, 0.0f);
  for (auto* sum : {&d_gain_c_, &d_bias_c_}) sum->assign(groups_ * P * units_, 0.0f);
}

void CpuRecurrence::step_backward(std::size_t t) {
  output_gradient(t);
  gate_gradient(t);
  if (t > 0) h_gradient(t);
}

// dh = d_output + what came from step t + 1, through h = o tanh(LN(c)).
void CpuRecurrence::output_gradient(std::size_t t) {
  for_tiles(pointwise_blocks_, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r) {
      float* dh = &dh_[state_row(d, p, r)];
      const float* d_output = &d_output_[unit_row(d, p, t, r)];
      for (std::size_t u = 0; u < units_; ++u) dh[u] += d_output[u];
      Sums& sums = sums_[lane(d, r) * pointwise_blocks_ + p];
      sums = {};
      if (!valid(t, d, r)) continue;
      sums = lstm_rows::output_backward({.norm = norm_c_[step_lane(t, d, r)],
                                         .gain = normalizes() ? &parameters_.gain_c[p * units_] : nullptr,
                                         .c = &c_[unit_row(d, p, t, r)],
                                         .o = &gates_[gate_row(d, p, t, r) + 2 * units_],
                                         .squashed = &squashed_[unit_row(d, p, t, r)],
                                         .dh = dh,
                                         .dn = &dn_[state_row(d, p, r)],
                                         .d_o = &d_o_[state_row(d, p, r)],
                                         .d_gain = &d_gain_c_[tile(d, p) * units_],
                                         .d_bias = &d_bias_c_[tile(d, p) * units_]},
                                        units_);
    }
  });
  if (normalizes()) statistics_.means(sums_, units_, means_);
}

// Through the gates and, with layer normalization, through LN(W_h h): gates -> dz, n_h -> da_h.
void CpuRecurrence::gate_gradient(std::size_t t) {
  const std::size_t width = 4 * units_;
  for_tiles(pointwise_blocks_, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r) {
      Sums& sums = sums_[lane(d, r) * pointwise_blocks_ + p];
      sums = {};
      if (!valid(t, d, r)) {
        clear_masked(d, p, t, r);
        continue;
      }
      const std::size_t row = gate_row(d, p, t, r), vector = tile(d, p) * width;
      sums = lstm_rows::gates_backward({.norm_c = norm_c_[step_lane(t, d, r)],
                                        .mean_dn = means_[lane(d, r)].dn,
                                        .mean_dn_n = means_[lane(d, r)].dn_n,
                                        .c = &c_[unit_row(d, p, t, r)],
                                        .c_before = c_before(d, p, t, r),
                                        .dn = &dn_[state_row(d, p, r)],
                                        .d_o = &d_o_[state_row(d, p, r)],
                                        .gain_h = normalizes() ? &parameters_.gain_h[p * width] : nullptr,
                                        .n_h = &a_h_[row],
                                        .n_x = &a_x_[row],
                                        .gates = &gates_[row],
                                        .d_c = &d_c_[state_row(d, p, r)],
                                        .d_bias = &d_bias_[vector],
                                        .d_gain_h = &d_gain_h_[vector],
                                        .d_gain_x = &d_gain_x_[vector]},
                                       units_);
    }
  });
  if (!normalizes()) return;
  statistics_.means(sums_, width, means_);
  for_tiles(pointwise_blocks_, [&](std::size_t d, std::size_t p) {
    for (std::size_t r = 0; r < rows_; ++r) {
      if (!valid(t, d, r)) continue;
      const std::size_t row = gate_row(d, p, t, r);
      lstm_rows::normalize_backward(norm_h_[step_lane(t, d, r)].scale, means_[lane(d, r)].dn,
                                    means_[lane(d, r)].dn_n, &parameters_.gain_h[p * width], &gates_[row],
                                    &a_h_[row], width);
    }
  });
}

// A masked step has no part in any gradient; dh and dc pass through it.
void CpuRecurrence::clear_masked(std::size_t d, std::size_t p, std::size_t t, std::size_t r) {
  const std::size_t row = gate_row(d, p, t, r);
  std::fill_n(&gates_[row], 4 * units_, 0.0f);
  std::fill_n(&a_h_[row], 4 * units_, 0.0f);
}

// dh of step t - 1 = W_h^T da_h, plus dh itself where step t was masked.
void CpuRecurrence::h_gradient(std::size_t t) {
  const std::vector<float>& d_pre = normalizes() ? a_h_ : gates_;
  const std::size_t of_block = rows_ * hidden_;
  partials_.resize(groups_ * blocks_ * of_block);
  const PackedGemm& product = backward_products_.at({rows_, hidden_});
  for_tiles(blocks_, [&](std::size_t d, std::size_t k) {
    product.run(&d_pre[gate_row(d, own_first_ + k, t, 0)], weights_[k].W_h,
                &partials_[(d * blocks_ + k) * of_block]);
  });

  const std::size_t own = groups_ * blocks_ * rows_ * units_;
  own_.resize(own);
  sum_.start(shape_.tiling.groups.local, shape_.tiling.rows, static_cast<int>(units_), own_);
  parallel_for(threads_, groups_, [&](std::size_t d) {
    sum_.add(static_cast<int>(d), 0, shape_.tiling.rows,
             std::span(partials_).subspan(d * blocks_ * of_block, blocks_ * of_block));
  });
  sum_.finish();
  std::span<const float> complete = own_;
  if (replicated()) {
    gathered_.resize(dh_.size());
    gather_.run_blocked(shape_.tiling.groups.local, shape_.tiling.rows, static_cast<int>(units_), own_,
                        gathered_);
    complete = gathered_;
  }
  for (std::size_t d = 0; d < groups_; ++d)
    for (std::size_t p = 0; p < pointwise_blocks_; ++p)
      for (std::size_t r = 0; r < rows_; ++r)
        if (valid(t, d, r)) std::copy_n(&complete[state_row(d, p, r)], units_, &dh_[state_row(d, p, r)]);
}

// Through LN(W_x x), all time steps at once: n_x -> da_x.
void CpuRecurrence::finish_inputs() {
  const std::size_t P = pointwise_blocks_, width = 4 * units_;
  sums_.resize(steps_ * groups_ * rows_ * P);
  input_means_.resize(steps_ * groups_ * rows_);
  for_tiles(P, [&](std::size_t d, std::size_t p) {
    for (std::size_t t = 0; t < steps_; ++t)
      for (std::size_t r = 0; r < rows_; ++r)
        sums_[step_lane(t, d, r) * P + p] =
            lstm_rows::normalized_sums(&parameters_.gain_x[p * width], &gates_[gate_row(d, p, t, r)],
                                       &a_x_[gate_row(d, p, t, r)], width);
  });
  statistics_.means(sums_, width, input_means_);
  for_tiles(P, [&](std::size_t d, std::size_t p) {
    for (std::size_t t = 0; t < steps_; ++t)
      for (std::size_t r = 0; r < rows_; ++r) {
        const std::size_t i = step_lane(t, d, r), row = gate_row(d, p, t, r);
        lstm_rows::normalize_backward(norm_x_[i].scale, input_means_[i].dn, input_means_[i].dn_n,
                                      &parameters_.gain_x[p * width], &gates_[row], &a_x_[row], width);
      }
  });
}

// dW_h = da_h^T h, dW_x = da_x^T x, one product per tile over all steps; lane groups merged in the tree.
void CpuRecurrence::weight_gradients(const RecurrenceBackward& b) {
  const std::size_t all = steps_ * rows_;
  const auto of_group = [&](std::size_t d, const std::vector<float>& d_pre, const float* values,
                            std::size_t width, std::span<float> out) {
    const Gemm& product = weight_products_.at({all, width});
    parallel_for(threads_, blocks_, [&](std::size_t k) {
      product.run(&d_pre[gate_row(d, own_first_ + k, 0, 0)], values, &out[k * 4 * units_ * width]);
    });
  };
  const std::vector<float>& d_pre_h = normalizes() ? a_h_ : gates_;
  const std::vector<float>& d_pre_x = normalizes() ? a_x_ : gates_;
  tree_.sum(groups_, b.d_parameters.W_h,
            [&](std::size_t d, std::span<float> out) { of_group(d, d_pre_h, h_before(d, 0), hidden_, out); });
  tree_.sum(groups_, b.d_parameters.W_x, [&](std::size_t d, std::span<float> out) {
    of_group(d, d_pre_x, &input_[d * all * inputs_], inputs_, out);
  });
}

void CpuRecurrence::vector_gradients(const LstmParameters<float>& d_parameters) {
  const auto merge = [&](const std::vector<float>& of_groups, std::size_t width, std::span<float> out) {
    tree_.sum(groups_, out, [&](std::size_t d, std::span<float> leaf) {
      std::copy_n(&of_groups[tile(d, own_first_) * width], leaf.size(), leaf.begin());
    });
  };
  merge(d_bias_, 4 * units_, d_parameters.bias);
  if (!normalizes()) return;
  merge(d_gain_x_, 4 * units_, d_parameters.gain_x);
  merge(d_gain_h_, 4 * units_, d_parameters.gain_h);
  merge(d_gain_c_, units_, d_parameters.gain_c);
  merge(d_bias_c_, units_, d_parameters.bias_c);
}

// dx = W_x^T da_x in chunks of rows that fit the cache.
void CpuRecurrence::input_gradient(std::span<float> d_input) {
  const std::vector<float>& d_pre = normalizes() ? a_x_ : gates_;
  const std::size_t all = steps_ * rows_, chunks = (all + kChunkRows - 1) / kChunkRows;
  sum_.start(shape_.tiling.groups.local, static_cast<int>(all), shape_.inputs / shape_.tiling.blocks.count,
             d_input);
  parallel_for(threads_, size(threads_), [&](std::size_t worker) {
    std::vector<float>& partials = chunk_partials_[worker];
    for (std::size_t i = worker; i < groups_ * chunks; i += size(threads_)) {
      const std::size_t d = i / chunks, first = i % chunks * kChunkRows,
                        count = std::min(kChunkRows, all - first);
      partials.resize(blocks_ * count * inputs_);
      for (std::size_t k = 0; k < blocks_; ++k)
        backward_products_.at({count, inputs_})
            .run(&d_pre[gate_row(d, own_first_ + k, 0, 0) + first * 4 * units_], weights_[k].W_x,
                 &partials[k * count * inputs_]);
      sum_.add(static_cast<int>(d), static_cast<int>(first), static_cast<int>(count), partials);
    }
  });
  sum_.finish();
}

std::size_t CpuRecurrence::saved_size() const {
  const std::size_t rows = groups_ * rows_ * size(shape_.max_time_steps) * pointwise_blocks_;
  const std::size_t per_row = 4 * 4 * units_ + 3 * units_;  // a_x, a_h, gates, x_term; c, squashed, d_output
  return rows * per_row + groups_ * rows_ * (size(shape_.max_time_steps) + 1) * hidden_;
}

}  // namespace

std::unique_ptr<Recurrence> make_cpu_recurrence(const RecurrenceShape& shape, Communicator& model_axis,
                                                int threads) {
  return std::make_unique<CpuRecurrence>(shape, model_axis, threads);
}

}  // namespace lamina
