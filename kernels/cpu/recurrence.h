// The LSTM and LN-LSTM recurrence on CPUs.
#pragma once

#include <memory>

#include "runtime/backend.h"

namespace lamina {

/// `threads`: of this rank. `model_axis` must outlive the recurrence.
std::unique_ptr<Recurrence> make_cpu_recurrence(const RecurrenceShape& shape, Communicator& model_axis,
                                                int threads);

}  // namespace lamina
