// Output layer and cross-entropy over a vocabulary that is split into class blocks.
#pragma once

#include <memory>

#include "runtime/backend.h"

namespace lamina {

/// `model_axis` must outlive the layer.
std::unique_ptr<SoftmaxOutput> make_cpu_softmax_output(const SoftmaxShape& shape, Communicator& model_axis,
                                                       int threads);

}  // namespace lamina
