// lamina benchmark: how fast this machine is at what a run needs. A sub-command is a pair of files in
// benchmark/.
#pragma once

#include "launch/commands/action.h"

namespace lamina {

/// Gives `parent` the command `benchmark` and its sub-commands.
void add_benchmarks(CLI::App& parent, Actions& actions);

}  // namespace lamina
