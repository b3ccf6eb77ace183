// Memory of peers by NCCL's symmetric windows: NCCL maps the memory of all GPUs of a node into each process.
#pragma once

#include <cstddef>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/exchanges/nccl_communicator.h"

namespace lamina::cuda {

/// Needs NCCL 2.28 or newer, of the version that the program was built with: what a window is on the device
/// belongs to the version. `group` is the exchange over `nccl`. Collective; an offer or a refusal on all
/// ranks.
PeerMemoryOffer make_nccl_peer_memory(Device& device, NcclCommunicator& nccl, Exchange& group,
                                      std::size_t bytes);

}  // namespace lamina::cuda
