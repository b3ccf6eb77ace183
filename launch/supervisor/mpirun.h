// The command line of mpirun.
#pragma once

#include <string>
#include <vector>

#include "launch/supervisor/job_processes.h"

namespace lamina {

/// `mpirun` and its further options, for `ranks` ranks that are not bound to cores, carry the mark of `job`
/// and keep their files in its folder. Hosts and the program are still to be added. Throws UserError where
/// mpirun would start nothing, because this is root.
std::vector<std::string> start_of_mpirun(const std::string& mpirun, int ranks, const JobFolder& job);

/// All ranks run on this machine, even where it has fewer cores; under a batch system, where that has them
/// run.
void add_this_machine(std::vector<std::string>& words, int ranks);

/// Whether a batch system gives mpirun its machines.
bool batch_system_places_ranks();

/// Whether this process is a rank of a job already.
bool is_started_by_mpirun();

/// This program's own file.
std::string own_program();

/// Cores that this process may use.
int cores();

}  // namespace lamina
