// The commands of the program: which there are, and what their arguments mean.
#pragma once

#include <string>
#include <vector>

#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina {

/// Does what `arguments` (without the program's name) ask for; rank 0 prints. Collective. Throws UserError,
/// DamagedCheckpoint and CheckpointWriteError on every rank alike, or on rank 0 of a command for one rank.
ExitCode run_command(const std::vector<std::string>& arguments, Communicator& world);

}  // namespace lamina
