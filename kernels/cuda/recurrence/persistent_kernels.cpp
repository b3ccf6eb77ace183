#include "kernels/cuda/recurrence/persistent_kernels.h"

#include <fmt/format.h>

#include "kernels/cuda/recurrence/persistent_launch.h"
#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

const char* name_of(Signal signal) {
  switch (signal) {
    case Signal::none:
      return "nothing";
    case Signal::rows:
      return "rows of the other blocks";
    case Signal::gate_numbers:
      return "sums over gates";
    case Signal::cell_numbers:
      return "sums over cells";
  }
  return "?";
}

}  // namespace

unsigned long long spin_limit_within(std::chrono::milliseconds deadline) {
  const std::chrono::nanoseconds limit = deadline.count() > 0 ? deadline : kDefaultDeadline;
  return static_cast<unsigned long long>(limit.count()) / 4 * 3;
}

void check_residency(const PersistentPlan& plan, const cudaDeviceProp& device) {
  const int blocks = plan.grid.blocks(), multiprocessors = device.multiProcessorCount;
  for (const int on_each : {resident_forward_blocks(plan.grid, plan.forward_bytes),
                            resident_backward_blocks(plan.grid, plan.backward_bytes)})
    check(on_each * multiprocessors >= blocks,
          fmt::format("persistent recurrence: {} blocks must run at once, of which {} multiprocessors hold "
                      "{} each",
                      blocks, multiprocessors, on_each));
}

void check_no_stall(const Stall& stall, const PersistentGrid& grid, int rank, const char* direction) {
  if (stall.is_claimed == 0) return;
  const bool is_alone = grid.ranks == 1;
  const int members = grid.own_members();
  check(false,
        fmt::format(
            "persistent recurrence, {}: block {}{} (team {}, member {}) waited too long in step {} for "
            "{}; is the GPU shared with other work{}?",
            direction, stall.block, is_alone ? "" : fmt::format(" of model rank {} of {}", rank, grid.ranks),
            stall.block / members, rank * members + stall.block % members, stall.step, name_of(stall.signal),
            is_alone ? "" : ", or is a model rank gone"));
}

}  // namespace lamina::cuda
