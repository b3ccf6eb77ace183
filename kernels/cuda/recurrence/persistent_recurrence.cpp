#include "kernels/cuda/recurrence/persistent_recurrence.h"

#include <fmt/format.h>

#include "kernels/cuda/recurrence/per_step_recurrence.h"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "kernels/cuda/recurrence/persistent_window.h"
#include "kernels/cuda/recurrence/stall_report.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// A rank has its own units only: the kernels exchange what the schedules differ in.
RecurrenceShape sharded(RecurrenceShape shape) {
  shape.exchange = lamina::Exchange::sharded;
  return shape;
}

class PersistentRecurrence final : public PerStepRecurrence {
 public:
  PersistentRecurrence(Device& device, const RecurrenceShape& shape, Exchange& model_axis,
                       const PersistentPlan& plan, std::unique_ptr<PeerMemory> window);

  void set_parameters(const LstmParameters<const float>& parameters) override;

 private:
  void run_forward_steps() override;
  void run_backward_steps() override;

  const float* own_columns();
  /// Nobody has said anything in the part of the window that the pass uses.
  void begin_pass();
  template <class T>
  T* in_window(std::size_t offset) const {
    const std::size_t pass = passes_ % 2 * layout_.bytes;
    return reinterpret_cast<T*>(window_->windows().base[axis_.rank()] + pass + offset);
  }
  PersistentArrays arrays(const __nv_bfloat16* weights, StallReport& stalls);
  /// Of all ranks, of which the kernel has written the units of this one.
  void gather_output();
  void sum_rows_of_gates();

  PersistentGrid grid_;
  PassLayout layout_;
  std::unique_ptr<PeerMemory> window_;  ///< two PassLayouts
  Meeting meeting_;
  std::size_t passes_ = 0;
  Buffer<float> column_shares_;  ///< several ranks: of each, the columns of W_h [M, K, 4U, H/M]
  Buffer<float> own_columns_;    ///< several ranks: [G, 4U, H/M]
  Buffer<__nv_bfloat16> forward_weights_, backward_weights_;  ///< of each member of this rank, packed
  Buffer<float> row_sums_h_, row_sums_x_;                     ///< LN: [K, 2, S, D, R]
  Buffer<float> output_of_rank_, output_of_ranks_;  ///< several ranks: [D, K, S*R, U], [M, D, K, S*R, U]
  StallReport forward_stalls_, backward_stalls_;
};

PersistentRecurrence::PersistentRecurrence(Device& device, const RecurrenceShape& shape, Exchange& model_axis,
                                           const PersistentPlan& plan, std::unique_ptr<PeerMemory> window)
    : PerStepRecurrence(device, sharded(shape), model_axis),
      grid_(plan.grid),
      layout_(grid_, shape.hidden, at_.normalized),
      window_(std::move(window)),
      meeting_(device, model_axis),
      forward_stalls_(device, grid_, model_axis.rank(), "forward"),
      backward_stalls_(device, grid_, model_axis.rank(), "backward") {
  const std::size_t H = size(hidden()), own_units = size(at_.own_blocks * at_.units);
  check_residency(plan, device.properties());
  forward_weights_ = device.allocate<__nv_bfloat16>(4 * H * own_units);
  backward_weights_ = device.allocate<__nv_bfloat16>(4 * H * own_units);
  if (axis_.size() > 1) {
    column_shares_ = device.allocate<float>(4 * own_units * H);
    own_columns_ = device.allocate<float>(4 * own_units * H);
    output_of_rank_ = device.allocate<float>(size(at_.groups * tile_rows()) * own_units);
    output_of_ranks_ = device.allocate<float>(size(at_.groups * tile_rows()) * H);
  }
  if (!at_.normalized) return;
  for (Buffer<float>* sums : {&row_sums_h_, &row_sums_x_})
    *sums = device.allocate<float>(size(2 * std::int64_t{at_.own_blocks} * at_.max_steps * at_.lanes()));
}

void PersistentRecurrence::set_parameters(const LstmParameters<const float>& parameters) {
  PerStepRecurrence::set_parameters(parameters);
  const bool is_alone = axis_.size() == 1;
  pack_weights(device_, at_, grid_.units,
               {.rows = W_h_.view().data(),
                .columns = is_alone ? W_h_.view().data() : own_columns(),
                .row_of_columns = hidden() / axis_.size(),
                .mean = centres_ ? centres_->of_h() : nullptr,
                .first_unit = shape_.tiling.blocks.first * at_.units,
                .forward = forward_weights_.view().data(),
                .backward = backward_weights_.view().data()});
}

/// W_h has the rows of this rank's units, and its members' backward products need the columns.
const float* PersistentRecurrence::own_columns() {
  const std::int64_t H = hidden(), columns = H / axis_.size();
  const int rows = 4 * at_.own_blocks * at_.units;
  pack_blocks(device_, {W_h_.view().data(), columns, 0, H}, axis_.size(), 1, rows, static_cast<int>(columns),
              column_shares_.view().data());
  axis_.all_to_all(column_shares_.view().data(), own_columns_.view().data(), size(rows * columns));
  return own_columns_.view().data();
}

void PersistentRecurrence::begin_pass() {
  ++passes_;
  device_.clear(in_window<unsigned char>(0), layout_.bytes);
}

PersistentArrays PersistentRecurrence::arrays(const __nv_bfloat16* weights, StallReport& stalls) {
  const StepArrays of_step = step_arrays(0);
  return {.at = at_,
          .grid = grid_,
          .steps = steps_,
          .parameters = of_step.parameters,
          .lengths = lengths(),
          .weights = reinterpret_cast<const uint4*>(weights),
          .peers = window_->windows(),
          .exchanged = in_window<__nv_bfloat16>(layout_.exchanged),
          .flags = in_window<unsigned>(layout_.flags),
          .gate_words = in_window<Word>(layout_.gate_words),
          .cell_words = in_window<WordPair>(layout_.cell_words),
          .stall = stalls.on_device(),
          .spin_limit = spin_limit_within(axis_.deadline()),
          .a_h = a_h_.view().data(),
          .gates = gates_.view().data(),
          .c = c_.view().data(),
          .s = s_.view().data(),
          .of_h = of_h_,
          .of_c = of_c_};
}

void PersistentRecurrence::run_forward_steps() {
  begin_pass();
  const float* h_first = h_first_.view().data();
  const std::int64_t group = at_.rows * hidden();
  round_blocks(device_, {h_first_.view().data(), group, 0, hidden()}, at_.groups, 1, at_.rows, shape_.hidden,
               {in_window<__nv_bfloat16>(layout_.exchanged), group, 0, hidden()});
  meeting_.put_on_stream();
  run_persistent(device_,
                 PersistentForward{.arrays = arrays(forward_weights_.view().data(), forward_stalls_),
                                   .a_x = (at_.normalized ? a_x_ : gates_).view().data(),
                                   .of_x = of_x_,
                                   .h_first = h_first,
                                   .output = output_.data(),
                                   .rounded_h = rounded_h(0, 0)},
                 grid_.blocks());
  forward_stalls_.send();
  if (axis_.size() > 1) gather_output();
}

void PersistentRecurrence::gather_output() {
  const int U = at_.units, K = at_.own_blocks, rows = steps_of_sequence();
  const std::int64_t group = rows * hidden();
  float *own = output_of_rank_.view().data(), *all = output_of_ranks_.view().data();
  float* own_part = output_.data() + std::int64_t{shape_.tiling.blocks.first} * U;
  pack_blocks(device_, {own_part, group, U, hidden()}, at_.groups, K, rows, U, own);
  axis_.all_gather(own, all, size(std::int64_t{at_.groups} * K * rows * U));
  place_blocks(device_, all, axis_.size(), at_.groups, K, rows, U, {output_.data(), group, U, hidden()});
  round_h(1, steps_, {output_.data(), group, 0, hidden()});
}

void PersistentRecurrence::run_backward_steps() {
  begin_pass();
  meeting_.put_on_stream();
  run_persistent(device_,
                 PersistentBackward{.arrays = arrays(backward_weights_.view().data(), backward_stalls_),
                                    .d_output = d_output_.data()},
                 grid_.blocks());
  backward_stalls_.send();
  if (at_.normalized) sum_rows_of_gates();
}

void PersistentRecurrence::sum_rows_of_gates() {
  const StepArrays arrays = step_arrays(0);
  sum_rows(device_, {.at = at_,
                     .steps = steps_,
                     .parameters = arrays.parameters,
                     .lengths = arrays.lengths,
                     .dz = arrays.gates,
                     .a_h = arrays.a_h,
                     .a_x = arrays.a_x,
                     .of_h = of_h_,
                     .of_x = of_x_,
                     .sums_h = row_sums_h_.view().data(),
                     .sums_x = row_sums_x_.view().data()});
  const auto merge = [&](const Buffer<float>& own, const SavedNormals& means) {
    const float* sums = own.view().data();
    if (axis_.size() > 1) {
      axis_.all_gather(sums, all_.view().data(), own.size());
      sums = all_.view().data();
    }
    merge_rows(device_, at_, steps_, sums, means);
  };
  merge(row_sums_h_, sums_h_);
  merge(row_sums_x_, sums_x_);
}

}  // namespace

std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape,
                                                       Exchange& model_axis, const PersistentPlan& plan) {
  check(plan.fits(), "persistent recurrence: " + plan.why_not);
  check(plan.grid.ranks == model_axis.size(), "persistent recurrence: the plan is for another model axis");
  const PassLayout layout(plan.grid, shape.hidden, shape.normalization == Normalization::layer);
  PeerMemoryOffer offer = model_axis.make_peer_memory(2 * layout.bytes);
  if (offer.memory == nullptr)
    throw UserError(
        fmt::format("--time-loop persistent over {} model ranks needs GPUs that store into each "
                    "other's memory: {}; use --time-loop steps",
                    model_axis.size(), offer.why_not));
  return std::make_unique<PersistentRecurrence>(device, shape, model_axis, plan, std::move(offer.memory));
}

}  // namespace lamina::cuda
