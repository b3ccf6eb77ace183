#include "kernels/cuda/recurrence/persistent_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/recurrence/persistent_layout.h"

namespace lamina::cuda {
namespace {

constexpr int kLeastMajorVersion = 8;  // of the compute capability: mma with bf16

int rounded_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

int ranks_of(const RecurrenceShape& shape) { return shape.tiling.blocks.count / shape.tiling.blocks.local; }

// Cuts the lanes among as many teams as there is room for.
PersistentGrid grid_of(int units, int ranks, int hidden, int lanes, int multiprocessors) {
  PersistentGrid grid{.units = units, .members = hidden / units, .ranks = ranks};
  const int room = grid.own_members() == 0 ? 0 : multiprocessors / grid.own_members();
  if (room == 0) return grid;
  const int teams = std::min(room, rounded_up(lanes, kTileRows) / kTileRows);
  grid.rows = rounded_up((lanes + teams - 1) / teams, kTileRows);
  grid.teams = (lanes + grid.rows - 1) / grid.rows;
  grid.row_tiles = std::min(most_row_tiles(units), grid.rows / kTileRows);
  return grid;
}

PersistentPlan plan_of(PersistentGrid grid, int hidden, const cudaDeviceProp& device) {
  PersistentPlan plan;
  if (hidden / grid.ranks % grid.units != 0) {
    plan.why_not = fmt::format("--hidden {} over {} model ranks does not divide into members of {} units",
                               hidden, grid.ranks, grid.units);
    return plan;
  }
  if (grid.teams == 0 || grid.members > kMostMembers) {
    plan.why_not = fmt::format("--hidden {} needs {} multiprocessors with {} units on each, of {}", hidden,
                               grid.own_members(), grid.units,
                               std::min(device.multiProcessorCount, kMostMembers / grid.ranks));
    return plan;
  }
  for (;; --grid.row_tiles) {
    plan.grid = grid;
    plan.forward_bytes = ForwardLayout(grid, hidden).bytes;
    plan.backward_bytes = BackwardLayout(grid, hidden).bytes;
    const std::size_t bytes = std::max(plan.forward_bytes, plan.backward_bytes);
    if (bytes <= device.sharedMemPerBlockOptin) return plan;
    if (grid.row_tiles > 1) continue;
    plan.why_not =
        fmt::format("--hidden {} with {} lanes in a team needs {} bytes of shared memory for {} units, of {}",
                    hidden, grid.rows, bytes, grid.units, device.sharedMemPerBlockOptin);
    return plan;
  }
}

std::string why_never(const RecurrenceShape& shape, const cudaDeviceProp& device) {
  if (device.major < kLeastMajorVersion)
    return fmt::format("compute capability {}.{} is below {}.0", device.major, device.minor,
                       kLeastMajorVersion);
  if (device.cooperativeLaunch == 0) return "the GPU has no cooperative launches";
  if (shape.precision != Precision::bf16)
    return fmt::format("its weights are bf16, and --precision is {}",
                       shape.precision == Precision::tf32 ? "tf32" : "f32");
  if (shape.hidden % kTileDepth != 0)
    return fmt::format("--hidden {} is no multiple of {}", shape.hidden, kTileDepth);
  return {};
}

PersistentPlan plan_on(int ranks, int lanes, int units, const RecurrenceShape& shape,
                       const cudaDeviceProp& device) {
  PersistentPlan refused;
  refused.why_not = why_never(shape, device);
  if (!refused.fits()) return refused;
  const PersistentGrid grid = grid_of(units, ranks, shape.hidden, lanes, device.multiProcessorCount);
  return plan_of(grid, shape.hidden, device);
}

PersistentPlan best_plan_on(int ranks, int lanes, const RecurrenceShape& shape,
                            const cudaDeviceProp& device) {
  PersistentPlan best = plan_on(ranks, lanes, 8, shape, device);
  for (const int units : {16, 32}) {
    const PersistentPlan plan = plan_on(ranks, lanes, units, shape, device);
    // Every member reads all rows of its team in every step: the fewer the better. Of refusals, the first
    // with enough multiprocessors says most.
    const bool is_better = plan.fits() ? !best.fits() || plan.grid.rows < best.grid.rows
                                       : !best.fits() && best.forward_bytes == 0;
    if (is_better) best = plan;
  }
  return best;
}

}  // namespace

PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device, int units) {
  return plan_on(ranks_of(shape), shape.tiling.local_lanes(), units, shape, device);
}

PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device) {
  const int ranks = ranks_of(shape), lanes = shape.tiling.local_lanes();
  for (int fewer = 1; fewer <= ranks; fewer *= 2)
    for (int some = shape.tiling.batch(); some >= shape.tiling.rows; some /= 2)
      if (const PersistentPlan plan = best_plan_on(fewer, some, shape, device); plan.fits())
        return plan_on(ranks, lanes, plan.grid.units, shape, device);
  return best_plan_on(ranks, lanes, shape, device);
}

}  // namespace lamina::cuda
