// Ranks along the data axis hold the same blocks of every parameter. That they stay equal, bit for bit, is
// what a wrong sum or a flipped bit of memory breaks first.
#pragma once

#include "runtime/backend.h"
#include "runtime/optimizer.h"
#include "runtime/parameter.h"
#include "runtime/process_grid.h"

namespace lamina {

/// Compares digests of parameters and optimizer state over the data axis. Collective over the world; throws a
/// UserError with ExitCode::replicas_differ on every rank alike, naming the first tensor that differs and the
/// ranks that hold it: those against the majority where there is one.
void require_equal_replicas(ParameterTable& table, Optimizer& optimizer, std::int64_t step, Backend& backend,
                            ProcessGrid& grid);

}  // namespace lamina
