// Saves a run: begins its checkpoints, lets them go on while training does, counts failures, removes old
// files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "io/checkpoint.h"
#include "launch/checkpointing.h"
#include "launch/configuration.h"
#include "launch/progress.h"
#include "runtime/process_grid.h"

namespace lamina {

class RunSaver {
 public:
  /// No folder: nothing is saved.
  RunSaver(std::optional<CheckpointFolder> folder, const CheckpointSettings& settings,
           const Progress& progress, RunTensors run, Backend& backend, ProcessGrid& grid);

  bool has_folder() const { return folder_.has_value(); }
  const CheckpointFolder& folder() const { return *folder_; }

  /// A folder without what an earlier run left, with a checkpoint of `record`. Collective; UserError when it
  /// cannot be written.
  void begin_folder(const CheckpointRecord& record);
  /// Begins a checkpoint, after an earlier one is complete; with --checkpoint-mode sync it waits for this one
  /// too. Training survives a failure, with a warning, until too many in a row have failed: then UserError.
  /// Collective.
  void save(const CheckpointRecord& record);
  /// This rank has done its part of the present stage of a checkpoint. Local.
  bool is_idle() const { return !pending_ || pending_->run.save.is_idle(); }
  /// Brings the checkpoint on its way a stage further, where there is one. Collective.
  void advance();
  /// Waits until no checkpoint is on its way. Collective.
  void finish();

  /// The run is as in the checkpoint of `step`, which was just read.
  void loaded(std::int64_t step) { saved_step_ = step; }
  /// Step of the newest complete checkpoint that this process wrote or read; none so far: -1.
  std::int64_t saved_step() const { return saved_step_; }

 private:
  struct Pending {
    RunSave run;
    std::filesystem::path file;
    std::int64_t step;
    double stall_seconds;  ///< that training has waited for it
  };

  DeadlineScope patience();
  void require_finite(std::int64_t step);
  void begin(const CheckpointRecord& record);
  void go_on(const std::function<void(CheckpointSave&)>& how);
  void complete();
  void count_failure(const CheckpointWriteError& error);

  std::optional<CheckpointFolder> folder_;
  CheckpointSettings settings_;
  Progress progress_;
  RunTensors run_;
  Backend& backend_;
  ProcessGrid& grid_;
  std::optional<RunSnapshot> snapshot_;  ///< from the first save on
  std::optional<Pending> pending_;
  std::int64_t saved_step_ = -1;
  int failures_ = 0;  ///< in a row
};

}  // namespace lamina
