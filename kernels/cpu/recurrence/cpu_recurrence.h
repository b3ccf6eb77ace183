// The time loop. Pointwise work runs over *tiles* (lane group x unit block), this rank's own blocks or all of
// the layer, as the schedule of exchanges has it: P below is the number of unit blocks whose gates a rank
// computes (K; replicated: G), Q that of the blocks whose output it computes, h from c and the gate o (K
// where sharded, else G). Products only ever run for own blocks. What crosses blocks goes through
// RowStatistics, BlockGather and BlockSum, which are collective and keep the tree order; in a time step they
// do it in an ExchangeRound, which other layers may share (wavefront.h).
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/large_array.h"
#include "kernels/cpu/lstm_cell.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/recurrence.h"
#include "kernels/cpu/recurrence/time_steps.h"
#include "kernels/cpu/recurrence_products.h"
#include "kernels/cpu/row_statistics.h"
#include "kernels/cpu/token_rows.h"

namespace lamina {

inline std::size_t size(int n) { return static_cast<std::size_t>(n); }

inline constexpr std::size_t kChunkRows = 64;  // of a sequence, at a time

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

  // The parts of forward() and backward(), for who runs several layers beside each other. Between begin and
  // end, all time steps are run with rounds over the model axis.
  enum class Comes { whole, by_steps };  ///< how a layer's input, or dL/dh from above, is handed in
  void begin_forward(const RecurrenceForward& f, Comes input);
  TimeSteps forward_steps(ExchangeRound& round);
  void end_forward(const RecurrenceForward& f);
  /// `pass_down`: [D, Q, T*R, I/G], where each step leaves dL/dx for the layer below; empty: at the end, as
  /// backward() does.
  void begin_backward(const RecurrenceBackward& b, Comes d_output, std::span<float> pass_down);
  TimeSteps backward_steps(ExchangeRound& round);
  void end_backward(const RecurrenceBackward& b);

  /// [D, G, T*R, U], where the layer above passes down to, from begin_backward() on with dL/dh `by_steps`;
  /// empty where sharded: there it is d_output itself
  std::span<float> d_output_all() { return d_output_all_; }
  Share output_share() const { return sharded() ? shape_.tiling.blocks : whole(); }
  const RecurrenceShape& shape() const { return shape_; }
  int threads() const { return threads_; }
  CoroutineMemory& coroutine_memory() { return coroutine_memory_; }
  int steps() const { return steps_; }  ///< of the latest forward pass

 private:
  // Memory for the longest sequence.
  void allocate();
  void allocate_for_normalization();

  bool normalized() const { return shape_.normalization == Normalization::layer; }
  bool replicated() const { return shape_.exchange == Exchange::replicated; }
  bool gathers_cells() const { return shape_.exchange == Exchange::cell; }
  bool sharded() const { return shape_.exchange == Exchange::sharded; }
  Share whole() const { return Share::of(shape_.tiling.blocks.count, 0, 1); }
  Share gate_share() const { return replicated() ? whole() : shape_.tiling.blocks; }

  // Forward.
  void begin_state(const RecurrenceForward& f);
  void transform_input();
  void measure_input(std::size_t d, std::size_t p, std::size_t first_row, std::size_t rows);
  void multiply(int t);
  void send_products(int t, ExchangeRound& round);
  void measure_products(std::size_t d, std::size_t p, int t);
  void take_statistics(int t);
  void update_cell(std::size_t d, std::size_t p, int t);
  void send_cells(int t, ExchangeRound& round);
  void measure_cell(std::size_t d, std::size_t q, int t);
  void write_output(std::size_t d, std::size_t q, int t);

  // Backward.
  void output_backward(std::size_t d, std::size_t q, int t);
  void gates_backward(std::size_t d, std::size_t p, int t, RowStatistics::Means means);
  void normalization_backward(std::size_t d, std::size_t k, int t, RowStatistics::Means means);
  void send_state_gradient(int t, ExchangeRound& round);
  void send_step_of_input_gradient(int t, ExchangeRound& round);
  void take_step_of_input_gradient(int t);
  void send_sum(BlockSum& sum, std::size_t width, const LargeArray& of_rank, std::span<float> out,
                ExchangeRound& round) const;
  void input_gradient(std::span<float> d_input);
  void parameter_gradients(const LstmParameters<float>& d);
  void sum_over_groups(const Floats& of_groups, std::size_t width, std::span<float> out) const;

  // task(d, k), task(d, p) or task(d, q) over tiles, on the rank's threads.
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
  /// Which of the P blocks is this rank's block k; which of the Q blocks is block p.
  std::size_t own(std::size_t k) const { return own_first_ + k; }
  std::size_t output_of(std::size_t p) const { return p - own_first_ + own_first_output_; }
  /// Whether the gates of block q are this rank's to compute, as block p.
  bool has_gates(std::size_t q) const { return q >= output_of(0) && q < output_of(blocks_); }
  // Tile (d, p) of [D, P, R, width], (d, q) of [D, Q, R, U].
  std::size_t tile(std::size_t d, std::size_t p, std::size_t width) const {
    return (d * blocks_ + p) * rows_ * width;
  }
  std::size_t output_tile(std::size_t d, std::size_t q) const {
    return (d * output_blocks_ + q) * rows_ * units_;
  }
  // Time step t of [D, P, T, R, 4U], [D, Q, T, R, U] and [D, Q, T+1, R, U].
  std::size_t gates_at(std::size_t d, std::size_t p, int t) const {
    return ((d * blocks_ + p) * size(steps_) + size(t)) * rows_ * 4 * units_;
  }
  std::size_t cell_at(std::size_t d, std::size_t q, int t) const {
    return ((d * output_blocks_ + q) * size(steps_) + size(t)) * rows_ * units_;
  }
  std::size_t state_at(std::size_t d, std::size_t q, int t) const {  // t = 0: before the first step
    return ((d * output_blocks_ + q) * size(steps_ + 1) + size(t)) * rows_ * units_;
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
  float* a_x(std::size_t d, std::size_t p, int t) { return &x_side()[gates_at(d, p, t)]; }
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
  /// Whether complete rows of h are written in place: the output is computed for all blocks.
  bool complete() const { return size(shape_.tiling.blocks.count) == output_blocks_; }
  /// c and o of an own tile, on their way to all ranks.
  float* own_cell(std::size_t d, std::size_t k) {
    return &own_cells_[(d * own_blocks_ + k) * 2 * rows_ * units_];
  }
  float* c_after(std::size_t d, std::size_t p, int t) {
    return gathers_cells() ? own_cell(d, p) : &c_[state_at(d, output_of(p), t + 1)];
  }
  struct OutputGate {
    const float* values;
    std::size_t stride;
  };
  OutputGate output_gate(std::size_t d, std::size_t q, int t) const {
    if (gathers_cells()) return {&o_[cell_at(d, q, t)], units_};
    return {&gates_[gates_at(d, q, t)] + 2 * units_, 4 * units_};
  }
  CellTile cell_tile(std::size_t d, int t) const {
    return {rows_,
            units_,
            normalized(),
            lengths_.empty() ? nullptr : lengths_.data() + d * rows_,
            t,
            token_rows_ ? tokens_.data() + input_row(d, t) : nullptr};
  }
  bool sums_by_token(std::size_t p) const { return token_rows_ && p - own_first_ < own_blocks_; }
  /// Where dz of a tile is added up.
  float* dz_sum(std::size_t d, std::size_t p) {
    if (sums_by_token(p)) return token_rows_->sums(d, p - own_first_);
    return &d_bias_[(d * blocks_ + p) * 4 * units_];
  }

  RecurrenceShape shape_;
  int threads_;
  std::size_t groups_, rows_, units_;                ///< D, R, U
  std::size_t own_blocks_, blocks_, output_blocks_;  ///< K, P, Q
  std::size_t own_first_, own_first_output_;         ///< of the P blocks, of the Q
  std::unique_ptr<Communicator> self_;
  Communicator &gate_axis_, &output_axis_;  ///< over which the work is split: this rank alone if it is not

  ExchangeRound round_;  ///< of this layer by itself
  CoroutineMemory coroutine_memory_;

  RecurrenceProducts products_;
  std::unique_ptr<TokenRows> token_rows_;  ///< the input side, where inputs are rows of a table
  BlockGather gather_, x_gather_, h_gather_;
  BlockSum state_sum_, input_sum_;
  RowStatistics h_statistics_, c_statistics_, x_statistics_, gate_sums_;
  ArrayTree group_tree_;

  Floats gain_x_, gain_h_, bias_, gain_c_, bias_c_;  ///< [P, 4, U] or [Q, U]

  // The latest forward pass; what backward() needs of it.
  int steps_ = 0;
  bool ready_for_backward_ = false;
  Comes input_comes_ = Comes::whole;
  std::span<const float> input_;
  std::span<const std::int32_t> tokens_;
  std::span<float> output_;
  Floats h_first_;                     ///< [D, R, H]
  std::vector<std::int32_t> lengths_;  ///< [D, R] or empty
  LargeArray gates_;                   ///< [D, P, T, R, 4U]; without LN they become dz
  LargeArray a_x_, a_h_;               ///< LN: the same; become da_x, da_h
  LargeArray c_;                       ///< [D, Q, T+1, R, U]
  LargeArray s_, o_;                   ///< [D, Q, T, R, U]; o: cells gathered only, else among the gates
  SavedStatistics of_x_, of_h_, of_c_;

  // One time step.
  LargeArray own_a_h_;         ///< [D, K, R, 4U], replicated only
  LargeArray own_a_x_;         ///< [D, K, T or 1, R, 4U], replicated only
  SavedStatistics step_of_x_;  ///< [D, R], where the input comes by steps
  LargeArray own_cells_;       ///< [D, K, 2, R, U], cells gathered only
  LargeArray h_;               ///< [D, Q, R, U], unless complete rows are written in place
  LargeArray d_h_, d_n_c_;     ///< [D, Q, R, U]
  LargeArray d_c_;             ///< [D, P, R, U]
  LargeArray dz_;              ///< LN, [D, P, R, 4U]
  LargeArray d_h_held_;        ///< [D, Q, R, U]; empty where all rows are valid
  LargeArray d_h_of_rank_;     ///< [D, R, H], summed over this rank's blocks
  LargeArray d_x_of_rank_;     ///< [D, R, I], likewise, where it is passed down by steps
  LargeArray d_x_;             ///< [D, Q, R, I/G], likewise, over all blocks

  // Gradients.
  SideWork side_work_;                                         ///< of RecurrenceBackward
  std::span<float> pass_down_;                                 ///< of begin_backward()
  std::span<const float> d_output_;                            ///< [D, Q, T*R, U]
  LargeArray d_output_all_;                                    ///< unless sharded
  Floats d_gain_x_, d_gain_h_, d_bias_, d_gain_c_, d_bias_c_;  ///< [D, P, 4, U] or [D, Q, U]
  LargeArray d_input_of_rank_;                                 ///< [rows of a chunk, I]
};

}  // namespace lamina
