// Output layer and cross-entropy on a GPU, over a vocabulary that is split into class blocks.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// `device` and `model_axis` must outlive the layer.
std::unique_ptr<SoftmaxOutput> make_cuda_softmax_output(Device& device, const SoftmaxShape& shape,
                                                        Exchange& model_axis);

}  // namespace lamina::cuda
