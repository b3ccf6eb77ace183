// Rows of a table that is split by column, on a GPU. Tokens are host memory.
#pragma once

#include <memory>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// `device` and `model_axis` must outlive the lookup.
std::unique_ptr<EmbeddingLookup> make_cuda_embedding_lookup(Device& device, const EmbeddingShape& shape,
                                                            Exchange& model_axis);

}  // namespace lamina::cuda
