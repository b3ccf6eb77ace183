// The recurrence with all time steps in one kernel (persistent_kernels.h), for one GPU that has the whole
// layer.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// Only where plan_persistent() says that it fits. `device` must outlive it. forward() and backward() wait
/// for the device, to see whether all blocks have come to their ends.
std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape);
std::unique_ptr<Recurrence> make_persistent_recurrence(Device& device, const RecurrenceShape& shape,
                                                       const PersistentPlan& plan);

}  // namespace lamina::cuda
