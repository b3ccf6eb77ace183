#include "kernels/cuda/recurrence.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "kernels/cuda/recurrence/per_step_recurrence.h"
#include "kernels/cuda/recurrence/persistent_recurrence.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

void require(const std::string& why_not) {
  if (why_not.empty()) return;
  throw UserError("--time-loop persistent does not fit here: " + why_not + "; use --time-loop steps");
}

/// What the ranks' kernels must have in common; units of 0 where it does not fit.
using Agreement = std::array<float, 4>;
Agreement agreement_of(const PersistentPlan& plan) {
  if (!plan.fits()) return {};
  return {static_cast<float>(plan.grid.units), static_cast<float>(plan.grid.teams),
          static_cast<float>(plan.grid.rows), 1};
}

/// Why not, on all ranks, where it fits on some only, or in different ways. Collective.
std::string why_not_together(Device& device, Exchange& axis, const PersistentPlan& plan) {
  constexpr std::size_t kCount = std::tuple_size_v<Agreement>;
  const Agreement own = agreement_of(plan);
  std::vector<Agreement> all(static_cast<std::size_t>(axis.size()));
  auto part = device.allocate<float>(kCount), parts = device.allocate<float>(kCount * all.size());
  device.to_device(own.data(), part.view().data(), sizeof own);
  axis.all_gather(part.view().data(), parts.view().data(), kCount);
  device.to_host(parts.view().data(), all.data(), all.size() * sizeof own);
  if (!plan.fits()) return plan.why_not;
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (all[rank] != own) return fmt::format("model rank {} has another kind of GPU", rank);
  return {};
}

}  // namespace

std::unique_ptr<Recurrence> make_cuda_recurrence(Device& device, const RecurrenceShape& shape,
                                                 Exchange& model_axis) {
  if (shape.exchange == lamina::Exchange::cell)
    throw UserError(
        "--exchange cell is only for CPUs: with --device cuda use --exchange sharded or replicated");
  if (shape.time_loop == TimeLoop::steps)
    return std::make_unique<PerStepRecurrence>(device, shape, model_axis);
  const PersistentPlan plan = plan_persistent(shape, device.properties());
  if (shape.time_loop == TimeLoop::automatic && (model_axis.size() > 1 || !plan.fits()))
    return std::make_unique<PerStepRecurrence>(device, shape, model_axis);
  require(model_axis.size() > 1 ? why_not_together(device, model_axis, plan) : plan.why_not);
  return make_persistent_recurrence(device, shape, model_axis, plan);
}

}  // namespace lamina::cuda
