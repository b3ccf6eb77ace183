// Saves a run: begins its checkpoints, lets them go on while training does, counts failures, removes old
// files.
#pragma once

#include <cstdint>
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
  /// A checkpoint. Collective. Training survives its failure, with a warning, until too many in a row have
  /// failed: then UserError.
  void save(const CheckpointRecord& record);
  /// This rank's part of the present stage of a checkpoint is done. Local.
  bool is_idle() const { return true; }
  /// Brings the checkpoint on its way one stage further; nothing to do where there is none. Collective, when
  /// all ranks are idle.
  void advance() {}
  /// Waits until no checkpoint is on its way. Collective.
  void finish() {}

  /// The run is as in the checkpoint of `step`, which was just read.
  void loaded(std::int64_t step) { saved_step_ = step; }
  /// Step of the newest complete checkpoint that this process wrote or read; none so far: -1.
  std::int64_t saved_step() const { return saved_step_; }

 private:
  void write(const CheckpointRecord& record);
  void count_failure(const CheckpointWriteError& error);

  std::optional<CheckpointFolder> folder_;
  CheckpointSettings settings_;
  Progress progress_;
  RunTensors run_;
  Backend& backend_;
  ProcessGrid& grid_;
  std::int64_t saved_step_ = -1;
  int failures_ = 0;  ///< in a row
};

}  // namespace lamina
