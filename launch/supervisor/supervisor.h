// Keeps a training running: starts mpirun, watches it, and starts it again from the newest checkpoint on what
// is left of the hosts.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "launch/configuration.h"
#include "launch/supervisor/hosts.h"
#include "launch/supervisor/incidents.h"
#include "launch/supervisor/job_end.h"
#include "launch/supervisor/job_grid.h"
#include "launch/supervisor/job_processes.h"
#include "launch/supervisor/process.h"
#include "launch/supervisor/settings.h"

namespace lamina {

class Supervisor {
 public:
  /// `arguments` are those of `lamina train` and `configuration` what they mean, both checked. Throws
  /// UserError.
  Supervisor(LaunchSettings settings, std::vector<std::string> arguments, const Configuration& configuration);

  /// Runs the training to its end and returns the exit code.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  using FileTimes = std::map<std::filesystem::path, std::filesystem::file_time_type>;

  /// What a start uses.
  struct Placement {
    JobGrid grid;
    std::vector<Host> hosts;  ///< none: this machine, or those that a batch system gives mpirun
  };

  JobEnd run_job(const Placement& placement);
  std::optional<Placement> place() const;
  std::vector<Host> answering_hosts() const;
  std::vector<std::string> command(const Placement& placement) const;
  void add_hosts(std::vector<std::string>& words) const;
  std::vector<std::string> training(const JobGrid& grid) const;
  bool are_left_of_old(const FileTimes& now) const;
  void refill_after_progress();
  std::optional<JobEnd> wait_for_restart();
  int conclude(const JobEnd& end, const std::string& why);
  void report(const JobEnd& end, const std::string& next);
  std::optional<std::vector<std::filesystem::path>> list() const;
  std::optional<FileTimes> checkpoints() const;
  static FileTimes times_of(const std::vector<std::filesystem::path>& files);
  static bool is_among(const FileTimes& files, const FileTimes::value_type& file);
  std::optional<std::int64_t> newest_step() const;
  std::filesystem::path hostfile() const;

  LaunchSettings settings_;
  std::vector<std::string> arguments_;
  CheckpointFolder folder_;
  bool resume_, overwrite_;
  std::vector<Host> hosts_;
  int ranks_;          ///< of the first start
  GridSettings grid_;  ///< of the first start, with its lane groups

  Signals signals_;
  JobFolder job_;
  Incidents incidents_;

  int attempt_ = 0, restarts_left_;
  FileTimes old_checkpoints_, checkpoints_at_start_;
  std::chrono::duration<double> pause_, lasted_{0};
  JobGrid last_grid_;
};

}  // namespace lamina
