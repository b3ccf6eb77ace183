// Everything a person can set, gathered from the components that own the settings. Flags, the TOML file,
// --help, the printed configuration and the checkpoint's record all come from one visit over the same fields.
#pragma once

#include <cstdint>
#include <string>

#include "launch/output_files.h"
#include "model/settings.h"
#include "runtime/optimizer.h"
#include "runtime/process_grid.h"

namespace lamina {

struct DataSettings {
  std::string task = "text";
  std::string data;
  double validation_fraction = 0.05;

  template <class Visitor>
  void visit(Visitor& v) {
    v.choice("task", task, {"text"}, "what is learned: text predicts the next character");
    v("data", data, "training text, UTF-8");
    v("validation-fraction", validation_fraction,
      "share of the text, from its end, held out for validation (0: none)");
  }
};

struct RunSettings {
  int batch = 32;
  int time_steps = 64;
  std::int64_t steps = 1000;
  std::int64_t seed = 1;
  std::string device = "cpu";
  int threads = 0;
  std::int64_t log_every = 10;
  std::int64_t validate_every = 0;
  std::string metrics;
  std::string trace;
  std::int64_t trace_step = 0;
  std::string non_finite = "stop";
  std::int64_t consistency_every = 0;
  int collective_timeout = 300;

  std::vector<NamedFile> outputs() const { return {{"metrics", metrics}, {"trace", trace}}; }

  template <class Visitor>
  void visit(Visitor& v) {
    v("batch", batch, "lanes of the whole run, over all ranks");
    v("time-steps", time_steps, "characters of each lane in one step (length of truncated back-propagation)");
    v("steps", steps, "updates of the whole run, resumed parts included");
    v("seed", seed, "seed of all random numbers");
    v.choice("device", device, {"cpu", "cuda"}, "where to compute");
    v("threads", threads, "threads of each rank (0: the node's cores shared among its ranks)");
    v("log-every", log_every, "steps between status lines; the first and the last step always have one");
    v("validate-every", validate_every,
      "steps between validations (0: with every checkpoint and at the end)");
    v("metrics", metrics, "file for one JSON record per interval");
    v("trace", trace,
      "file for the timeline of one step on all ranks, for chrome://tracing or ui.perfetto.dev");
    v("trace-step", trace_step, "the step whose timeline --trace writes (0: the third of this start)");
    v.choice(
        "non-finite", non_finite, {"stop", "skip", "rollback"},
        "when a loss or gradient is not finite: stop the run, skip the update and begin the lanes again, or "
        "go back to the newest checkpoint (once for each step)");
    v("consistency-every", consistency_every,
      "steps between comparisons of the parameters along the data axis (0: before each checkpoint only)");
    v("collective-timeout", collective_timeout,
      "seconds that a rank waits for its peers before the run ends, naming who did not come (0: for ever)");
  }
};

struct CheckpointSettings {
  std::string checkpoint;
  std::int64_t checkpoint_every = 0;
  int keep = 3;
  std::int64_t keep_every = 0;
  bool keep_best = false;
  std::string checkpoint_mode = "async";
  std::string checkpoint_io = "posix";
  int checkpoint_timeout = 1800;
  int max_checkpoint_failures = 3;
  bool resume = false;
  bool overwrite = false;

  template <class Visitor>
  void visit(Visitor& v) {
    v("checkpoint", checkpoint, "folder for checkpoints");
    v("checkpoint-every", checkpoint_every, "steps between checkpoints (0: at step 0 and at the end)");
    v("keep", keep, "newest checkpoints to keep (0: all)");
    v("keep-every", keep_every, "also keep the checkpoints of every so many steps (0: none)");
    v("keep-best", keep_best, "also keep the checkpoint with the best validation loss");
    v.choice("checkpoint-mode", checkpoint_mode, {"async", "sync"},
             "write a checkpoint while training goes on, or stop for it");
    v.choice("checkpoint-io", checkpoint_io, {"posix", "mpi-io"},
             "how ranks write into the file: each by itself, or through HDF5's MPI-IO (then training waits)");
    v("checkpoint-timeout", checkpoint_timeout,
      "seconds that a rank waits for its peers while a checkpoint is read or written (0: for ever)");
    v("max-checkpoint-failures", max_checkpoint_failures,
      "failed checkpoints in a row that end the run (0: it always goes on)");
    v("resume", resume, "go on from the newest valid checkpoint of the folder");
    v("overwrite", overwrite, "begin anew in a folder that holds checkpoints, removing them");
  }
};

struct Configuration {
  DataSettings data;
  ModelSettings model;
  OptimizerSettings optimizer;
  GridSettings grid;
  RunSettings run;
  CheckpointSettings checkpoint;

  template <class Visitor>
  void visit(Visitor& v) {
    data.visit(v);
    model.visit(v);
    optimizer.visit(v);
    grid.visit(v);
    run.visit(v);
    checkpoint.visit(v);
  }

  /// Throws UserError on a value out of range or settings that contradict each other.
  void validate() const;
};

/// More than any machine holds, and so little that no count of numbers or bytes leaves 64 bits.
inline constexpr int kMostLayers = 1024, kMostUnits = 1 << 20, kMostLanes = 1 << 20, kMostTimeSteps = 1 << 20;

/// Throws UserError unless a step can be `batch` lanes of as many characters as `time_steps`, whose flag is
/// `steps_name`.
void validate_step(int batch, int time_steps, const char* steps_name = "time-steps");

/// The configuration as TOML, one `name = value` line per setting.
std::string to_toml(Configuration configuration);
/// Reads what to_toml() wrote. Throws UserError naming `source` on unknown keys or wrong values.
Configuration from_toml(const std::string& toml, const std::string& source);

}  // namespace lamina
