#include "launch/run_saver.h"

#include <fmt/format.h>

#include "launch/agreement.h"
#include "runtime/error.h"

namespace lamina {
namespace {

/// A run that begins anew removes what an earlier one left in the folder.
void remove_checkpoints(const CheckpointFolder& folder) {
  folder.remove_partials();
  for (const auto& file : folder.list()) std::filesystem::remove(file);
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
  from_root(grid_.world(), [&] {
    remove_checkpoints(*folder_);
    return std::string();
  });
  try {
    write(record);
  } catch (const CheckpointWriteError& error) {
    throw UserError(
        fmt::format("{}; nothing was trained: give a --checkpoint folder with room for the first checkpoint",
                    error.what()));
  }
}

void RunSaver::save(const CheckpointRecord& record) {
  try {
    write(record);
    failures_ = 0;
  } catch (const CheckpointWriteError& error) {
    count_failure(error);
  }
}

/// Throws CheckpointWriteError on every rank alike.
void RunSaver::write(const CheckpointRecord& record) {
  const std::filesystem::path file = folder_->file_of(record.step);
  const CheckpointCost cost = save_run(file, record, run_, backend_, grid_);
  saved_step_ = record.step;
  progress_.checkpoint_written(file.string(), cost.seconds, cost.bytes);
  if (!grid_.is_root()) return;
  try {
    folder_->prune(settings_.keep);
  } catch (const UserError& error) {
    progress_.warning(fmt::format("{}; it stays", error.what()));
  }
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
