// Waits for a job to end, passes on what others ask of it, and ends it when it does not end by itself.
#pragma once

#include <chrono>
#include <string>

#include "launch/supervisor/job_end.h"
#include "launch/supervisor/process.h"

namespace lamina {

struct WatchLimits {
  std::chrono::seconds saving{300};  ///< for the ranks to save after they were asked to
  std::chrono::seconds ending{30};   ///< for mpirun to end after ranks of this machine have ended
  bool all_ranks_are_here = false;   ///< so that a job without ranks here has none
};

/// SIGUSR1 asks the ranks to save and end, by mpirun; so do the first SIGTERM, SIGINT or SIGHUP, with a
/// limit; the next one ends the job at once. `job` marks the job's processes.
JobEnd watch(Process& mpirun, const Signals& signals, const WatchLimits& limits, const std::string& job);

/// What a stop that came while nothing was running comes to.
JobEnd stopped_between_jobs(int signal);

/// A line on stderr, with the time.
void say_at_supervisor(const std::string& message);

}  // namespace lamina
