// Between a run and its checkpoints: which tensors a model, its optimizer and its lanes have, and how to
// bring them back on any grid.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "io/checkpoint.h"
#include "io/text.h"
#include "launch/configuration.h"
#include "model/language_model.h"
#include "runtime/optimizer.h"
#include "runtime/process_grid.h"

namespace lamina {

/// All that a checkpoint holds of a run, beside its record. optimizer and state may be null: then only the
/// parameters are read.
struct RunTensors {
  LanguageModel& model;
  Optimizer* optimizer = nullptr;
  CarriedState* state = nullptr;
};

class RunStaging;

/// A save of a run that goes on beside training.
struct RunSave {
  CheckpointSave save;
  double stall_seconds = 0;  ///< that training waited for the copy, on this rank
};

/// Host memory for what this rank writes of a run, kept from save to save: taking it anew costs more than the
/// copy. Everything named here must outlive it.
class RunSnapshot {
 public:
  RunSnapshot(RunTensors run, Backend& backend, ProcessGrid& grid);
  ~RunSnapshot();

  /// Copies the run as it is now and begins to save it. The snapshot must outlive the save and serves one at
  /// a time. By all ranks alike, but they do not wait for each other.
  RunSave begin_save(const std::filesystem::path& file, const CheckpointRecord& record,
                     CheckpointIo io = CheckpointIo::posix);

 private:
  std::unique_ptr<RunStaging> staging_;
  Communicator& world_;
};

/// Collective. Throws DamagedCheckpoint or UserError on every rank alike.
void load_run(const std::filesystem::path& file, RunTensors tensors, Backend& backend, ProcessGrid& grid);

/// Threads of each rank for a setting: `wanted`, or for 0 the cores of a host shared among its ranks. Throws
/// UserError where more are wanted than any machine has. Collective.
int threads_per_rank(int wanted, Communicator& world);

/// A device by its setting ("cpu", "cuda"); the ranks of a host take its GPUs in turn. Throws UserError where
/// it is not built in. Collective.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads, Communicator& world);

/// A trained model, read for evaluation or generation.
struct TrainedModel {
  std::filesystem::path file;
  CheckpointRecord record;
  Vocabulary vocabulary;
  std::unique_ptr<ProcessGrid> grid;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<LanguageModel> model;
};

struct LoadSettings {
  int model_parallel = 1;
  int batch = 1;
  int time_steps = 1;
  std::string device = "cpu";
  int threads = 0;
};

/// Reads a checkpoint file, or the newest one of a folder. Collective over `world`.
TrainedModel load_trained_model(const std::filesystem::path& file_or_folder, const LoadSettings& settings,
                                Communicator& world);

}  // namespace lamina
