// On how many ranks a job can run with the slots that are left.
#pragma once

#include "runtime/process_grid.h"

namespace lamina {

struct JobGrid {
  int ranks = 1;
  int model_parallel = 1;
};

/// The largest grid of at most `slots` ranks that keeps the run's bits: `wanted` with its lane groups (more
/// than 0), and a smaller model axis only where the whole one does not fit. slots is 1 or more.
JobGrid largest_grid(int slots, const GridSettings& wanted);

}  // namespace lamina
