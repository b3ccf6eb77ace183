// How a job ended, and whether starting it again may help.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "launch/supervisor/process.h"
#include "runtime/error.h"

namespace lamina {

struct JobEnd {
  std::string words;     ///< "a rank was killed by SIGKILL (exit code 137)"
  int exit_code = 0;     ///< of the supervisor, if this is the end of the run
  bool restart = false;  ///< another start may go further
};

/// What became of mpirun, by its status as waitpid() has it.
JobEnd end_of_job(int status);

}  // namespace lamina
