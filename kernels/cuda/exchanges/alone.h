// The exchange of a group of one.
#pragma once

#include "kernels/cuda/exchange.h"

namespace lamina::cuda {

/// Both must outlive it.
std::unique_ptr<Exchange> make_exchange_alone(Device& device, Communicator& group);

}  // namespace lamina::cuda
