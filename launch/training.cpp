#include "launch/training.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/backends.h"
#include "launch/agreement.h"
#include "launch/evaluate.h"
#include "launch/replicas.h"
#include "launch/stop_request.h"
#include "launch/version.h"
#include "runtime/error.h"
#include "runtime/fault_point.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

constexpr int kMostSkippedInARow = 10;

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

Tiling tiling_of_pass(const ProcessGrid& grid) {
  Tiling pass = grid.tiling();
  pass.groups.local /= grid.passes();
  return pass;
}

// Both spoil numbers on the order of a test.

void spoil_gradient(std::span<float> gradients, Backend& backend) {
  if (!injected_corruption(FaultPoint::gradient)) return;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  backend.to_device(std::span(&nan, 1), gradients.first(1));
}

void spoil_parameter(ParameterTable& table, Backend& backend) {
  if (injected_corruption(FaultPoint::parameter)) {
    float value = 0;
    backend.to_host(table.values().first(1), std::span(&value, 1));
    value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1u);
    backend.to_device(std::span<const float>(&value, 1), table.values().first(1));
  }
}

}  // namespace

Training::Training(const Configuration& configuration, std::optional<CheckpointFolder> folder,
                   std::optional<ResumePoint> point, const Progress& progress, Communicator& world,
                   std::optional<Corpus> corpus)
    : configuration_(configuration),
      point_(std::move(point)),
      progress_(progress),
      grid_(world, point_ ? layout_of_run(configuration.grid, *point_, world.size()) : configuration.grid,
            configuration.run.batch),
      threads_(threads_per_rank(configuration.run.threads, world)),
      backend_(make_backend(configuration.run.device, threads_, world)),
      corpus_(corpus ? std::move(*corpus) : read_corpus(configuration.data, world)),
      lanes_(corpus_.training, configuration.run.batch, configuration.run.time_steps),
      model_(configuration.model, corpus_.vocabulary.size(), configuration.run.time_steps,
             tiling_of_pass(grid_), *backend_, grid_.model(),
             static_cast<std::uint64_t>(configuration.run.seed)),
      optimizer_(configuration.optimizer, model_.parameters(), *backend_),
      gradient_sync_(grid_.passes(), model_.parameters(), *backend_, grid_.data()),
      state_(*backend_, configuration.model.layers, configuration.model.hidden, grid_.tiling()),
      saver_(std::move(folder), configuration.checkpoint, progress, tensors(), *backend_, grid_) {
  if (configuration.data.validation_fraction > 0) {
    require_held_out_text(configuration.data, corpus_);
    validation_lanes_.emplace(corpus_.validation, configuration.run.batch, configuration.run.time_steps);
  }
}

void Training::begin() {
  if (point_) resume(*point_);
  open_metrics(point_ ? std::optional(step_) : std::nullopt);
  open_trace();
  summarize();
  if (saver_.has_folder() && !point_) saver_.begin_folder(record());
  started_ = interval_.start = Clock::now();
}

/// Records of later steps than `kept` are to go.
void Training::open_metrics(std::optional<std::int64_t> kept) {
  from_root(grid_.world(), [&] {
    if (!configuration_.run.metrics.empty()) metrics_.emplace(configuration_.run.metrics, kept);
    return std::string();
  });
}

void Training::open_trace() {
  const RunSettings& run = configuration_.run;
  if (step_ >= run.steps && !run.trace.empty())
    progress_.warning(fmt::format("no step is left to trace: {} is not written", run.trace));
  if (step_ < run.steps)
    trace_.emplace(run.trace, run.trace_step, step_ + 1, run.steps, threads_, progress_, grid_.world());
}

/// Falls back to older checkpoints while files turn out to be damaged.
void Training::resume(ResumePoint point) {
  const DeadlineScope deadline(grid_.world(),
                               std::chrono::seconds(configuration_.checkpoint.checkpoint_timeout));
  require_same_run(configuration_, grid_.tiling(), corpus_, lanes_.chunks_per_epoch(), point);
  for (;;) {
    try {
      load_run(point.file, tensors(), *backend_, grid_);
      step_ = point.record.step;
      validation_loss_ = point.record.validation_loss;
      saver_.loaded(step_);
      from_root(grid_.world(), [&] {
        saver_.folder().remove_partials();
        return std::string();
      });
      progress_.note(fmt::format("resumed from {}, step {}", point.file.string(), step_));
      return;
    } catch (const DamagedCheckpoint& damage) {
      set_aside_damaged(point.file, damage.what(), grid_.world(), progress_);
    }
    point = find_resume_point(saver_.folder(), grid_.world(), progress_).value();
  }
}

/// Sets the mean loss of the step's predictions, in nats; gradients are left in the table, complete. Returns
/// what was not finite on this rank before ranks were summed.
NonFinite Training::forward_backward() {
  const Tiling& tiling = grid_.tiling();
  const int groups = tiling.groups.local / grid_.passes();
  const std::size_t per_group = count(batch_.time_steps) * count(tiling.rows);
  const auto part = [&](const std::vector<std::int32_t>& all, int first) {
    return std::span(all).subspan(per_group * count(first), per_group * count(groups));
  };

  ParameterTable& table = model_.parameters();
  const BackwardHooks hooks{.gradients_are_set =
                                [&](ParameterRange range) {
                                  if (range.first == 0) spoil_gradient(table.gradient(0), *backend_);
                                  gradient_sync_.add(range);
                                },
                            .side_work = {.advance = [this] { gradient_sync_.advance(); },
                                          .pause = [this] { gradient_sync_.pause(); }}};

  std::vector<double> losses(count(tiling.groups.local));
  for (int first = 0; first < tiling.groups.local; first += groups) {
    const Sequences sequences{batch_.time_steps, part(batch_.tokens, first), part(batch_.targets, first), {}};
    model_.forward(sequences, state_, first, static_cast<std::uint64_t>(step_));
    model_.backward(1 / static_cast<float>(batch_.predictions), hooks);
    gradient_sync_.advance();  // the device need not wait until the host has the losses
    prefetch(step_);
    model_.losses(std::span(losses).subspan(count(first), count(groups)));
  }
  spoil_parameter(table, *backend_);
  const NonFinite found = find_non_finite(table, losses, gradient_sync_.non_finite_of_rank(), *backend_);
  fault_point(FaultPoint::gradient_sync);
  gradient_sync_.finish();

  std::vector<double> all(count(tiling.groups.count));
  grid_.data().all_gather(std::span<const double>(losses), std::span(all));
  loss_ =
      tree_sum(all.size(), [&](std::size_t g) { return all[g]; }) / static_cast<double>(batch_.predictions);
  return found;
}

bool Training::train_step() {
  trace_->begin(step_ + 1);
  return advance();
}

/// Fetches the batch of the step after `step`, unless it is there. For GPUs, which are still at the last one.
void Training::prefetch(std::int64_t step) {
  if (next_batch_step_ == step) return;
  lanes_.fetch(step, grid_.tiling(), next_batch_);
  next_batch_step_ = step;
}

bool Training::advance() {
  fault_point(FaultPoint::step);
  prefetch(step_);
  std::swap(batch_, next_batch_);
  next_batch_step_.reset();
  if (batch_.first) state_.reset(*backend_);
  ++step_;
  ++interval_.steps;
  grid_.world().note_step(step_);

  StepNote note{.stop = stop_requested(), .save_is_idle = saver_.is_idle(), .non_finite = forward_backward()};
  gradient_norm_ = global_gradient_norm(model_.parameters(), *backend_, grid_.model());
  if (note.non_finite.place == NonFinite::Place::nowhere && !std::isfinite(gradient_norm_))
    note.non_finite.place = NonFinite::Place::gradient_norm;
  agreement_ = StepAgreement(note, grid_.world());
  if (agreement_.save_is_idle()) saver_.advance();
  if (!agreement_.all_finite()) return go_on_without_update();
  update();
  return true;
}

void Training::update() {
  const Span span(SpanKind::optimizer, "update");
  learning_rate_ = learning_rate_at(configuration_.optimizer, step_, configuration_.run.steps);
  optimizer_.update(step_, learning_rate_, clip_scale(gradient_norm_, configuration_.optimizer.clip_norm),
                    model_.parameters());
  model_.parameters_changed();
  validation_loss_.reset();
  skipped_in_a_row_ = 0;
  interval_.loss += loss_;
  ++interval_.updates;
}

/// What --non-finite says about a step with a number that is not finite. False: the run went back.
bool Training::go_on_without_update() {
  const std::string what =
      fmt::format("{} at step {}", agreement_.non_finite_text(model_.parameters()), step_);
  const auto stop = [&](const char* because) {
    saver_.finish();  // the checkpoint on its way is of a step that was right
    throw UserError(
        fmt::format("{}{}: lower --learning-rate or set --clip-norm, and --resume", what, because),
        ExitCode::non_finite_loss);
  };
  const std::string& policy = configuration_.run.non_finite;
  if (!agreement_.parameters_are_finite() && policy == "skip") stop(", and no skipped update can mend it");
  if (policy == "skip") {
    if (++skipped_in_a_row_ == kMostSkippedInARow) stop(", the tenth in a row that was skipped");
    progress_.warning(what + "; its update is skipped, and the lanes begin again from a zero state");
    skip();
    return true;
  }
  if (policy == "rollback") {
    if (rolled_back_at_ == step_) stop(" again, after the run had gone back to a checkpoint for it");
    progress_.warning(what + "; going back to the newest checkpoint");
    roll_back();
    return false;
  }
  stop("");
  return false;
}

/// The carried state has seen the numbers that were not finite.
void Training::skip() { state_.reset(*backend_); }

void Training::roll_back() {
  rolled_back_at_ = step_;
  saver_.finish();
  const auto point = find_resume_point(saver_.folder(), grid_.world(), progress_);
  if (!point) {
    throw UserError(fmt::format("there is no checkpoint in {} to go back to: start the run anew",
                                saver_.folder().path().string()),
                    ExitCode::non_finite_loss);
  }
  resume(*point);
  open_metrics(step_);
  interval_ = {Clock::now(), 0, communication_seconds(), 0, 0};
}

template <class Record>
void Training::write_metrics(const Record& record) {
  const std::string trouble = metrics_ ? metrics_->write(record) : "";
  if (!trouble.empty())
    progress_.warning(trouble + "; training goes on, and its records follow when they can");
}

void Training::report() {
  const Clock::time_point now = Clock::now();
  const double seconds = seconds_between(interval_.start, now);
  const auto steps = static_cast<double>(interval_.steps);
  const double loss = interval_.updates > 0 ? interval_.loss / static_cast<double>(interval_.updates) : loss_;
  const double tokens = steps * configuration_.run.batch * configuration_.run.time_steps;
  const double communication = communication_seconds();
  const TrainingRecord record{.step = step_,
                              .loss = loss,
                              .gradient_norm = gradient_norm_,
                              .learning_rate = learning_rate_,
                              .tokens_per_second = tokens / seconds,
                              .communication_share = (communication - interval_.communication) / seconds,
                              .seconds = seconds_between(started_, now)};
  progress_.status({.step = step_,
                    .steps = configuration_.run.steps,
                    .loss = record.loss,
                    .gradient_norm = record.gradient_norm,
                    .learning_rate = record.learning_rate,
                    .tokens_per_second = record.tokens_per_second,
                    .communication_share = record.communication_share,
                    .seconds_left = seconds / steps * static_cast<double>(configuration_.run.steps - step_)});
  write_metrics(record);
  interval_ = {Clock::now(), 0, communication, 0, 0};
}

void Training::validate() {
  if (!validation_lanes_) return;
  const Span span(SpanKind::other, "validation");
  const TraceScope off(nullptr);  // its own spans would hide those of the step
  const Clock::time_point start = Clock::now();
  const double communication = communication_seconds();
  const EvaluationResult result =
      evaluate_text(model_, *validation_lanes_, *backend_, grid_, configuration_.run.time_steps);
  if (std::isfinite(result.loss)) validation_loss_ = result.loss;  // else it is none that could be the best
  progress_.validation(step_, result.loss, result.predictions);
  write_metrics(
      ValidationRecord{step_, result.loss, result.predictions, seconds_between(started_, Clock::now())});
  interval_.start += Clock::now() - start;  // the interval measures training only
  interval_.communication += communication_seconds() - communication;
}

CheckpointRecord Training::record() const {
  const std::int64_t chunks = lanes_.chunks_per_epoch();
  return {.step = step_,
          .seed = static_cast<std::uint64_t>(configuration_.run.seed),
          .lane_groups = grid_.tiling().groups.count,
          .unit_blocks = grid_.tiling().blocks.count,
          .batch = configuration_.run.batch,
          .epoch = step_ / chunks,
          .chunk = step_ % chunks,
          .validation_loss = validation_loss_,
          .configuration = to_toml(configuration_),
          .vocabulary = corpus_.vocabulary.characters(),
          .build = build_record(),
          .text_digest = corpus_.digest};
}

void Training::save() {
  if (!saver_.has_folder()) return;
  const Clock::time_point start = Clock::now();
  saver_.save(record());
  interval_.start += Clock::now() - start;
}

void Training::require_equal_replicas() {
  try {
    lamina::require_equal_replicas(model_.parameters(), optimizer_, step_, *backend_, grid_);
  } catch (const UserError&) {
    saver_.finish();  // the checkpoint on its way is of replicas that were equal
    throw;
  }
}

TrainingResult Training::end() {
  if (trace_) trace_->finish();
  saver_.finish();
  const bool saved = !saver_.has_folder() || saver_.saved_step() == step_;
  const bool preempted = step_ < configuration_.run.steps;
  if (preempted && saver_.has_folder() && saved)
    progress_.note(fmt::format("stopped on request at step {}, saved: --resume goes on", step_));
  if (preempted && !saver_.has_folder())
    progress_.warning(
        fmt::format("stopped on request at step {}; nothing is saved without --checkpoint", step_));
  return {step_, loss_, gradient_norm_, saved && (saver_.has_folder() || !preempted), preempted};
}

void Training::summarize() {
  const ModelSettings& model = configuration_.model;
  const ParameterTable& table = model_.parameters();
  const auto local = static_cast<double>(table.local_size());
  const double floats =
      local * static_cast<double>(2 + optimizer_.slots().size()) + static_cast<double>(model_.saved_size());
  progress_.summary(
      {.task = configuration_.data.task,
       .data = configuration_.data.data,
       .training_characters = static_cast<std::int64_t>(corpus_.training.size()),
       .validation_characters = static_cast<std::int64_t>(corpus_.validation.size()),
       .vocabulary = corpus_.vocabulary.size(),
       .data_ranks = grid_.data().size(),
       .model_ranks = grid_.model().size(),
       .lane_groups = grid_.tiling().groups.count,
       .unit_blocks = grid_.tiling().blocks.count,
       .passes = grid_.passes(),
       .transport = grid_.world().transport(),
       .device = backend_->description(),
       .model = fmt::format("{}-layer {}, {} units, {}, embedding {}", model.layers, model.cell, model.hidden,
                            model.normalization == "layer" ? "layer normalization" : "no normalization",
                            model.embedding),
       .parameters = table.global_size(),
       .megabytes_per_rank = floats * sizeof(float) / 1e6,
       .batch = configuration_.run.batch,
       .time_steps = configuration_.run.time_steps,
       .steps = configuration_.run.steps,
       .first_step = step_,
       .checkpoint = saver_.has_folder() ? saver_.folder().path().string() : ""});
  if (corpus_.left_out > 0) {
    progress_.note(fmt::format("{} held-out characters that the training text does not have are left out",
                               corpus_.left_out));
  }
  if (model.precision == "bf16" && backend_->name() == "cpu" && !cpu_multiplies_bf16())
    progress_.note(
        "this CPU has no fast AVX512-BF16: --precision bf16 is multiplied in f32 here, with the same bits, "
        "and may be slower than --precision f32");
}

}  // namespace lamina
