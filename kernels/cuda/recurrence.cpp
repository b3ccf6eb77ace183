#include "kernels/cuda/recurrence.h"

#include "kernels/cuda/recurrence/per_step_recurrence.h"
#include "kernels/cuda/recurrence/persistent_recurrence.h"
#include "runtime/error.h"

namespace lamina::cuda {

std::unique_ptr<Recurrence> make_cuda_recurrence(Device& device, const RecurrenceShape& shape,
                                                 Exchange& model_axis) {
  if (shape.exchange == lamina::Exchange::cell)
    throw UserError(
        "--exchange cell is only for CPUs: with --device cuda use --exchange sharded or replicated");
  if (shape.time_loop == TimeLoop::steps)
    return std::make_unique<PerStepRecurrence>(device, shape, model_axis);
  const PersistentPlan plan = plan_persistent(shape, device.properties());
  if (!plan.fits() && shape.time_loop == TimeLoop::automatic)
    return std::make_unique<PerStepRecurrence>(device, shape, model_axis);
  if (!plan.fits())
    throw UserError("--time-loop persistent does not fit here: " + plan.why_not + "; use --time-loop steps");
  return make_persistent_recurrence(device, shape, plan);
}

}  // namespace lamina::cuda
