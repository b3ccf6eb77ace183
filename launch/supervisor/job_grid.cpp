#include "launch/supervisor/job_grid.h"

#include <algorithm>
#include <bit>

#include "runtime/error.h"

namespace lamina {

JobGrid largest_grid(int slots, const GridSettings& wanted) {
  check(slots >= 1 && wanted.lane_groups >= 1, "a grid needs a slot and a number of lane groups");
  const int ranks = static_cast<int>(std::bit_floor(static_cast<unsigned>(slots)));
  const int model = std::min(wanted.model_parallel, ranks);
  const int data = std::clamp(ranks / model, 1, std::max(1, wanted.lane_groups / wanted.passes));
  return {data * model, model};
}

}  // namespace lamina
