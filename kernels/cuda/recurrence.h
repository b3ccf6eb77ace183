// The recurrence of kernels/cpu/recurrence.h on a GPU.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// TimeLoop::steps: one product and one kernel per time step, captured as a graph where the exchange over the
/// model axis allows it. TimeLoop::persistent: one kernel for all steps; a UserError where it does not fit.
/// TimeLoop::automatic: that where it fits and the model axis has one rank, else the other.
/// `device` and `model_axis` must outlive it. Collective over the model axis.
std::unique_ptr<Recurrence> make_cuda_recurrence(Device& device, const RecurrenceShape& shape,
                                                 Exchange& model_axis);

}  // namespace lamina::cuda
