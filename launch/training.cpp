#include "launch/training.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "launch/agreement.h"
#include "launch/evaluate.h"
#include "launch/version.h"
#include "runtime/error.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

/// What a person leaves open of a resumed run's layout comes from its checkpoint, for it decides the bits.
GridSettings layout_of(GridSettings settings, const std::optional<ResumePoint>& point) {
  if (point && settings.lane_groups == 0) settings.lane_groups = point->record.lane_groups;
  return settings;
}

Tiling tiling_of_pass(const ProcessGrid& grid) {
  Tiling pass = grid.tiling();
  pass.groups.local /= grid.passes();
  return pass;
}

/// A run that begins anew removes what an earlier one left in the folder.
void remove_checkpoints(const CheckpointFolder& folder) {
  folder.remove_partials();
  for (const auto& file : folder.list()) std::filesystem::remove(file);
}

}  // namespace

Training::Training(const Configuration& configuration, std::optional<CheckpointFolder> folder,
                   std::optional<ResumePoint> point, const Progress& progress, Communicator& world)
    : configuration_(configuration),
      folder_(std::move(folder)),
      point_(std::move(point)),
      progress_(progress),
      grid_(world, layout_of(configuration.grid, point_), configuration.run.batch),
      threads_(threads_per_rank(configuration.run.threads, world)),
      backend_(make_backend(configuration.run.device, threads_)),
      corpus_(read_corpus(configuration.data, world)),
      lanes_(corpus_.training, configuration.run.batch, configuration.run.time_steps),
      model_(configuration.model, corpus_.vocabulary.size(), configuration.run.time_steps,
             tiling_of_pass(grid_), *backend_, grid_.model(),
             static_cast<std::uint64_t>(configuration.run.seed)),
      optimizer_(configuration.optimizer, model_.parameters(), *backend_),
      gradient_sync_(grid_.passes(), model_.parameters(), *backend_),
      state_(*backend_, configuration.model.layers, configuration.model.hidden, grid_.tiling()) {
  if (configuration.data.validation_fraction > 0) {
    validation_lanes_.emplace(corpus_.validation, configuration.run.batch, configuration.run.time_steps);
  }
}

void Training::begin() {
  const bool resumed = point_ && resume(*point_);
  from_root(grid_.world(), [&] {
    const auto kept = resumed ? std::optional(step_) : std::nullopt;
    if (!configuration_.run.metrics.empty()) metrics_.emplace(configuration_.run.metrics, kept);
    return std::string();
  });
  summarize();
  if (folder_ && !resumed) begin_folder();
  started_ = interval_.start = Clock::now();
}

/// A folder without what an earlier run left, with a checkpoint of step 0.
void Training::begin_folder() {
  from_root(grid_.world(), [&] {
    remove_checkpoints(*folder_);
    return std::string();
  });
  try {
    write_checkpoint();
  } catch (const CheckpointWriteError& error) {
    throw UserError(
        fmt::format("{}; nothing was trained: give a --checkpoint folder with room for the first checkpoint",
                    error.what()));
  }
}

/// Falls back to older checkpoints while files turn out to be damaged; false: none is left.
bool Training::resume(ResumePoint point) {
  require_same_run(configuration_, grid_.tiling(), corpus_.vocabulary, point);
  for (;;) {
    try {
      load_run(point.file, tensors(), *backend_, grid_);
      step_ = point.record.step;
      if (grid_.is_root()) folder_->remove_partials();
      progress_.note(fmt::format("resumed from {}, step {}", point.file.string(), step_));
      return true;
    } catch (const DamagedCheckpoint& damage) {
      set_aside_damaged(point.file, damage.what(), grid_.world(), progress_);
    }
    const auto older = find_resume_point(*folder_, grid_.world(), progress_);
    if (!older) break;
    point = *older;
  }
  progress_.note("no valid checkpoint is left: starting from step 0");
  return false;
}

/// The mean loss of the step's predictions, in nats; gradients are left in the table, complete.
double Training::forward_backward() {
  const Tiling& tiling = grid_.tiling();
  const int groups = tiling.groups.local / grid_.passes();
  const std::size_t per_group = count(batch_.time_steps) * count(tiling.rows);
  const auto part = [&](const std::vector<std::int32_t>& all, int first) {
    return std::span(all).subspan(per_group * count(first), per_group * count(groups));
  };

  std::vector<double> losses(count(tiling.groups.local));
  for (int first = 0; first < tiling.groups.local; first += groups) {
    const Sequences sequences{batch_.time_steps, part(batch_.tokens, first), part(batch_.targets, first), {}};
    model_.forward(sequences, state_, first, static_cast<std::uint64_t>(step_),
                   std::span(losses).subspan(count(first), count(groups)));
    model_.backward(1 / static_cast<float>(batch_.predictions));
    gradient_sync_.add_pass();
  }
  gradient_sync_.finish(grid_.data());

  std::vector<double> all(count(tiling.groups.count));
  grid_.data().all_gather(std::span<const double>(losses), std::span(all));
  return tree_sum(all.size(), [&](std::size_t g) { return all[g]; }) /
         static_cast<double>(batch_.predictions);
}

void Training::train_step() {
  lanes_.fetch(step_, grid_.tiling(), batch_);
  if (batch_.first) state_.reset(*backend_);
  ++step_;

  loss_ = forward_backward();
  ParameterTable& table = model_.parameters();
  gradient_norm_ = global_gradient_norm(table, *backend_, grid_.model());
  if (!std::isfinite(loss_) || !std::isfinite(gradient_norm_)) {
    throw UserError(fmt::format("the loss ({}) or the gradient norm ({}) is not finite at step {}: lower "
                                "--learning-rate or set --clip-norm, and --resume",
                                loss_, gradient_norm_, step_),
                    ExitCode::non_finite_loss);
  }
  learning_rate_ = learning_rate_at(configuration_.optimizer, step_, configuration_.run.steps);
  optimizer_.update(step_, learning_rate_, clip_scale(gradient_norm_, configuration_.optimizer.clip_norm),
                    table);
  model_.parameters_changed();

  interval_.loss += loss_;
  ++interval_.steps;
}

void Training::report() {
  const Clock::time_point now = Clock::now();
  const double seconds = seconds_between(interval_.start, now);
  const auto steps = static_cast<double>(interval_.steps);
  const double tokens = steps * configuration_.run.batch * configuration_.run.time_steps;
  const double communication = communication_seconds();
  const TrainingRecord record{.step = step_,
                              .loss = interval_.loss / steps,
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
  if (metrics_) metrics_->write(record);
  interval_ = {Clock::now(), 0, communication, 0};
}

void Training::validate() {
  if (!validation_lanes_) return;
  const Clock::time_point start = Clock::now();
  const double communication = communication_seconds();
  const EvaluationResult result =
      evaluate_text(model_, *validation_lanes_, *backend_, grid_, configuration_.run.time_steps);
  progress_.validation(step_, result.loss, result.predictions);
  if (metrics_)
    metrics_->write(
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
          .validation_loss = std::nullopt,
          .configuration = to_toml(configuration_),
          .vocabulary = corpus_.vocabulary.characters(),
          .build = build_record()};
}

void Training::save() {
  if (!folder_) return;
  const Clock::time_point start = Clock::now();
  try {
    write_checkpoint();
    last_checkpoint_written_ = true;
  } catch (const CheckpointWriteError& error) {
    progress_.warning(fmt::format("{}; training goes on, older checkpoints are untouched", error.what()));
    last_checkpoint_written_ = false;
  }
  interval_.start += Clock::now() - start;
}

/// Throws CheckpointWriteError on every rank alike.
void Training::write_checkpoint() {
  const std::filesystem::path file = folder_->file_of(step_);
  const CheckpointCost cost = save_run(file, record(), tensors(), *backend_, grid_);
  progress_.checkpoint_written(file.string(), cost.seconds, cost.bytes);
  if (!grid_.is_root()) return;
  try {
    folder_->prune({.keep_last = configuration_.checkpoint.keep});
  } catch (const UserError& error) {
    progress_.warning(fmt::format("{}; it stays", error.what()));
  }
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
       .checkpoint = folder_ ? folder_->path().string() : ""});
  if (corpus_.left_out > 0) {
    progress_.note(fmt::format("{} held-out characters that the training text does not have are left out",
                               corpus_.left_out));
  }
}

}  // namespace lamina
