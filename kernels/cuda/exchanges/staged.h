// An exchange through the host, for ranks that share a GPU and where there is no NCCL.
#pragma once

#include "kernels/cuda/exchange.h"

namespace lamina::cuda {

std::unique_ptr<Exchange> make_staged_exchange(Device& device, Communicator& group);

}  // namespace lamina::cuda
