#include "kernels/cuda/recurrence/persistent_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/recurrence/persistent_layout.h"

namespace lamina::cuda {
namespace {

constexpr int kLeastMajorVersion = 8;  // of the compute capability: mma with bf16

int rounded_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Cuts the lanes among as many teams as there is room for.
PersistentGrid grid_of(int units, int hidden, int lanes, int multiprocessors) {
  PersistentGrid grid{.units = units, .members = hidden / units};
  const int room = multiprocessors / grid.members;
  if (room == 0) return grid;
  const int teams = std::min(room, rounded_up(lanes, kTileRows) / kTileRows);
  grid.rows = rounded_up((lanes + teams - 1) / teams, kTileRows);
  grid.teams = (lanes + grid.rows - 1) / grid.rows;
  grid.row_tiles = std::min(most_row_tiles(units), grid.rows / kTileRows);
  return grid;
}

PersistentPlan plan_of(PersistentGrid grid, int hidden, const cudaDeviceProp& device) {
  PersistentPlan plan;
  if (grid.teams == 0 || grid.members > kMostMembers) {
    plan.why_not = fmt::format("--hidden {} needs {} multiprocessors with {} units on each, of {}", hidden,
                               grid.members, grid.units, std::min(device.multiProcessorCount, kMostMembers));
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
  if (shape.tiling.blocks.local != shape.tiling.blocks.count)
    return "the hidden units are split over model ranks";
  if (shape.hidden % kTileDepth != 0)
    return fmt::format("--hidden {} is no multiple of {}", shape.hidden, kTileDepth);
  return {};
}

}  // namespace

PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device, int units) {
  PersistentPlan refused;
  refused.why_not = why_never(shape, device);
  if (!refused.fits()) return refused;
  const PersistentGrid grid =
      grid_of(units, shape.hidden, shape.tiling.local_lanes(), device.multiProcessorCount);
  return plan_of(grid, shape.hidden, device);
}

PersistentPlan plan_persistent(const RecurrenceShape& shape, const cudaDeviceProp& device) {
  PersistentPlan best = plan_persistent(shape, device, 8);
  for (const int units : {16, 32}) {
    const PersistentPlan plan = plan_persistent(shape, device, units);
    // Every member reads all rows of its team in every step: the fewer the better. Of refusals, the first
    // with enough multiprocessors says most.
    const bool is_better = plan.fits() ? !best.fits() || plan.grid.rows < best.grid.rows
                                       : !best.fits() && best.forward_bytes == 0;
    if (is_better) best = plan;
  }
  return best;
}

}  // namespace lamina::cuda
