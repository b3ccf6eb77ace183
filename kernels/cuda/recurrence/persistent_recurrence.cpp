#include "kernels/cuda/recurrence/persistent_recurrence.h"

#include <fmt/format.h>

#include "kernels/cuda/exchanges/alone.h"
#include "kernels/cuda/recurrence/per_step_recurrence.h"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Before the base class that needs it.
struct OwnExchange {
  std::unique_ptr<Exchange> alone;
};

class PersistentRecurrence final : OwnExchange, public PerStepRecurrence {
 public:
  PersistentRecurrence(Device& device, const RecurrenceShape& shape, const PersistentPlan& plan);

  void set_parameters(const LstmParameters<const float>& parameters) override;

 private:
  void run_forward_steps() override;
  void run_backward_steps() override;
  PersistentArrays arrays(const __nv_bfloat16* weights, __nv_bfloat16* exchanged);
  void sum_rows_of_gates();
  /// Nobody has said anything.
  void clear_signals();
  void check_end(const char* direction);

  PersistentGrid grid_;
  Buffer<float> mean_;                                        ///< LN: [H] of the columns of W_h
  Buffer<__nv_bfloat16> forward_weights_, backward_weights_;  ///< of each member, packed
  Buffer<__nv_bfloat16> states_, state_gradients_;            ///< [2, rows, H], [2, rows, 4H]
  Buffer<unsigned> flags_;                                    ///< [teams, members]
  Buffer<Word> gate_words_;                                   ///< LN: [2, rows, members]
  Buffer<WordPair> cell_words_;                               ///< LN: [2, rows, members]
  Buffer<Stall> stall_;                                       ///< [1]
};

PersistentRecurrence::PersistentRecurrence(Device& device, const RecurrenceShape& shape,
                                           const PersistentPlan& plan)
    : OwnExchange{make_exchange_alone(device)}, PerStepRecurrence(device, shape, *alone), grid_(plan.grid) {
  const std::size_t H = size(hidden()), rows = 2 * size(grid_.all_rows()), members = size(grid_.members);
  check_residency(plan, device.properties());
  forward_weights_ = device.allocate<__nv_bfloat16>(4 * H * H);
  backward_weights_ = device.allocate<__nv_bfloat16>(4 * H * H);
  states_ = device.allocate<__nv_bfloat16>(rows * H);
  state_gradients_ = device.allocate<__nv_bfloat16>(rows * 4 * H);
  flags_ = device.allocate<unsigned>(size(grid_.blocks()));
  stall_ = device.allocate<Stall>(1);
  if (!at_.normalized) return;
  mean_ = device.allocate<float>(H);
  gate_words_ = device.allocate<Word>(rows * members);
  cell_words_ = device.allocate<WordPair>(rows * members);
}

void PersistentRecurrence::set_parameters(const LstmParameters<const float>& parameters) {
  PerStepRecurrence::set_parameters(parameters);
  const float* W_h = W_h_.view().data();
  if (at_.normalized) mean_of_columns(device_, at_, W_h, mean_.view().data());
  pack_weights(device_, at_, grid_.units, W_h, mean_.view().data(), forward_weights_.view().data(),
               backward_weights_.view().data());
}

PersistentArrays PersistentRecurrence::arrays(const __nv_bfloat16* weights, __nv_bfloat16* exchanged) {
  const StepArrays of_step = step_arrays(0);
  return {.at = at_,
          .grid = grid_,
          .steps = steps_,
          .parameters = of_step.parameters,
          .lengths = lengths(),
          .weights = reinterpret_cast<const uint4*>(weights),
          .exchanged = exchanged,
          .flags = flags_.view().data(),
          .gate_words = gate_words_.view().data(),
          .cell_words = cell_words_.view().data(),
          .stall = stall_.view().data(),
          .a_h = a_h_.view().data(),
          .gates = gates_.view().data(),
          .c = c_.view().data(),
          .s = s_.view().data(),
          .of_h = of_h_,
          .of_c = of_c_};
}

void PersistentRecurrence::clear_signals() {
  const auto clear = [&](auto& buffer) {
    if (buffer.size() > 0) device_.clear(buffer.view().data(), buffer.size() * sizeof(*buffer.view().data()));
  };
  clear(flags_);
  clear(gate_words_);
  clear(cell_words_);
  clear(stall_);
}

void PersistentRecurrence::run_forward_steps() {
  clear_signals();
  const float* h_first = h_first_.view().data();
  const std::int64_t group = at_.rows * hidden();
  round_blocks(device_, {h_first_.view().data(), group, 0, hidden()}, at_.groups, 1, at_.rows, shape_.hidden,
               {states_.view().data(), group, 0, hidden()});
  run_persistent(device_,
                 PersistentForward{.arrays = arrays(forward_weights_.view().data(), states_.view().data()),
                                   .a_x = (at_.normalized ? a_x_ : gates_).view().data(),
                                   .of_x = of_x_,
                                   .h_first = h_first,
                                   .output = output_.data(),
                                   .rounded_h = rounded_h(0, 0)},
                 grid_.blocks());
  check_end("forward");
}

void PersistentRecurrence::run_backward_steps() {
  clear_signals();
  run_persistent(
      device_,
      PersistentBackward{.arrays = arrays(backward_weights_.view().data(), state_gradients_.view().data()),
                         .d_output = d_output_.data()},
      grid_.blocks());
  check_end("backward");
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
                     .sums_h = sums_h_,
                     .sums_x = sums_x_});
}

void PersistentRecurrence::check_end(const char* direction) {
  Stall stall;
  device_.to_host(stall_.view().data(), &stall, sizeof stall);
  check_no_stall(stall, grid_, direction);
}

}  // namespace

std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape) {
  return make_persistent_recurrence(device, shape, plan_persistent(shape, device.properties()));
}

std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape,
                                                       const PersistentPlan& plan) {
  check(plan.fits(), "persistent recurrence: " + plan.why_not);
  return std::make_unique<PersistentRecurrence>(device, shape, plan);
}

}  // namespace lamina::cuda
