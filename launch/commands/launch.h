// lamina launch: a training under a supervisor that starts mpirun again when it fails. Without MPI.
#pragma once

#include <string>
#include <vector>

namespace lamina {

/// Whether `arguments` (without the program's name) ask for a supervisor, and this process is no rank of a
/// job.
bool asks_for_supervisor(const std::vector<std::string>& arguments);

/// Does what `lamina launch …` asks for and returns the exit code. Throws UserError before anything is
/// started.
int launch(const std::vector<std::string>& arguments);

}  // namespace lamina
