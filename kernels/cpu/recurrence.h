// The LSTM and LN-LSTM recurrence on CPUs, layer by layer or as a wavefront.
#pragma once

#include <memory>
#include <vector>

#include "runtime/backend.h"

namespace lamina {

/// `threads`: of this rank. `model_axis` must outlive the recurrence.
std::unique_ptr<Recurrence> make_cpu_recurrence(const RecurrenceShape& shape, Communicator& model_axis,
                                                int threads);

/// `layers`, which that function made over `model_axis`, and `model_axis` must outlive it.
std::unique_ptr<Wavefront> make_cpu_wavefront(const std::vector<Recurrence*>& layers,
                                              Communicator& model_axis);

}  // namespace lamina
