#include "launch/run_saver.h"

#include <fmt/format.h>

#include <chrono>

#include "launch/agreement.h"
#include "launch/replicas.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A run that begins anew removes what an earlier one left in the folder.
void remove_checkpoints(const CheckpointFolder& folder) {
  folder.remove_partials();
  for (const auto& file : folder.list()) {
    std::error_code error;
    std::filesystem::remove(file, error);
    if (error)
      throw UserError(fmt::format("{} cannot be removed: {}; remove it or give another --checkpoint",
                                  file.string(), error.message()));
  }
}

}  // namespace

RunSaver::RunSaver(std::optional<CheckpointFolder> folder, const CheckpointSettings& settings,
                   const Progress& progress, RunTensors run, Backend& backend, ProcessGrid& grid)
    : folder_(std::move(folder)),
      settings_(settings),
      progress_(progress),
      run_(run),
      backend_(backend),
      grid_(grid) {}

void RunSaver::begin_folder(const CheckpointRecord& record) {
  const DeadlineScope deadline = patience();
  from_root(grid_.world(), [&] {
    remove_checkpoints(*folder_);
    return std::string();
  });
  begin(record);
  try {
    pending_->run.save.finish();
  } catch (const CheckpointWriteError& error) {
    pending_.reset();
    throw UserError(
        fmt::format("{}; nothing was trained: give a --checkpoint folder with room for the first checkpoint",
                    error.what()));
  }
  complete();
}

void RunSaver::save(const CheckpointRecord& record) {
  const Span span(SpanKind::other, "save");
  const DeadlineScope deadline = patience();
  const Clock::time_point start = Clock::now();
  finish();  // the snapshot serves one at a time
  begin(record);
  pending_->stall_seconds = seconds_since(start);
  if (settings_.checkpoint_mode == "sync") finish();
}

/// Disks take longer than peers.
DeadlineScope RunSaver::patience() {
  return {grid_.world(), std::chrono::seconds(settings_.checkpoint_timeout)};
}

/// A checkpoint that is not finite could replace all that are.
void RunSaver::require_finite(std::int64_t step) {
  on_every_rank(grid_.world(), [&] {
    ParameterTable& table = run_.model.parameters();
    if (backend_.all_finite(table.values())) return;
    for (int i = 0; i < static_cast<int>(table.all().size()); ++i)
      if (!backend_.all_finite(table.value(i)))
        throw UserError(
            fmt::format("the parameter {} is not finite on rank {} after step {}, so no checkpoint of it "
                        "is written: lower --learning-rate or set --clip-norm, and --resume",
                        table[i].name, grid_.world().rank(), step),
            ExitCode::non_finite_loss);
  });
}

void RunSaver::begin(const CheckpointRecord& record) {
  require_finite(record.step);
  require_equal_replicas(run_.model.parameters(), *run_.optimizer, record.step, backend_, grid_);
  const std::filesystem::path file = folder_->file_of(record.step);
  const CheckpointIo io = settings_.checkpoint_io == "mpi-io" ? CheckpointIo::mpi_io : CheckpointIo::posix;
  if (!snapshot_) snapshot_.emplace(run_, backend_, grid_);
  pending_.emplace(Pending{snapshot_->begin_save(file, record, io), file, record.step, 0});
  pending_->run.save.then([folder = &*folder_, settings = settings_] {
    folder->prune({settings.keep, settings.keep_every, settings.keep_best});
  });
}

void RunSaver::advance() {
  go_on([](CheckpointSave& save) { save.advance(); });
}

void RunSaver::finish() {
  go_on([](CheckpointSave& save) { save.finish(); });
}

void RunSaver::go_on(const std::function<void(CheckpointSave&)>& how) {
  if (!pending_) return;
  const Span span(SpanKind::other, "checkpoint");
  const DeadlineScope deadline = patience();
  const Clock::time_point start = Clock::now();
  try {
    how(pending_->run.save);
  } catch (const CheckpointWriteError& error) {
    pending_.reset();
    return count_failure(error);
  }
  pending_->stall_seconds += seconds_since(start);
  if (pending_->run.save.is_complete()) complete();
}

void RunSaver::complete() {
  const CheckpointSave& save = pending_->run.save;
  progress_.checkpoint_written(pending_->file.string(), save.cost().seconds, pending_->stall_seconds,
                               save.cost().bytes);
  if (!save.warning().empty()) progress_.warning(fmt::format("{}; it stays", save.warning()));
  saved_step_ = pending_->step;
  failures_ = 0;
  pending_.reset();
}

void RunSaver::count_failure(const CheckpointWriteError& error) {
  ++failures_;
  const int limit = settings_.max_checkpoint_failures;
  if (limit > 0 && failures_ >= limit) {
    throw UserError(
        fmt::format("{}; that was failure {} in a row, and --max-checkpoint-failures is {}: make room "
                    "and --resume",
                    error.what(), failures_, limit),
        ExitCode::checkpoint_not_written);
  }
  progress_.warning(fmt::format("{}; training goes on, older checkpoints are untouched", error.what()));
}

}  // namespace lamina
