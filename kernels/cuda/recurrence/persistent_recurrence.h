// The recurrence with all time steps in one kernel (persistent_kernels.h), for one GPU that has the whole
// layer, or for those of a model axis.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// `plan` must fit, and be the same on all ranks. `device` and `model_axis` must outlive the recurrence.
/// UserError, on all ranks, where their GPUs do not reach each other's memory. Where a block did not come to
/// its end in forward() or backward(), the next wait for the device throws InternalError, and all later ones.
/// Collective over the model axis, as is its end.
std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape,
                                                       Exchange& model_axis, const PersistentPlan& plan);

}  // namespace lamina::cuda
