// An exchange by NCCL, from GPU to GPU.
#pragma once

#include "kernels/cuda/exchange.h"

namespace lamina::cuda {

/// Null on all ranks where the build has no NCCL, a host has none, two ranks share a GPU, or the environment
/// variable LAMINA_NCCL is 0. UserError where a version is too old. Collective.
///
/// Ranks that share a GPU may try it with LAMINA_NCCL_SHARED_GPU=1, which takes an NCCL that lets them: 2.30
/// with NCCL_MULTI_RANK_GPU_ENABLE=1, or older ones with another NCCL_HOSTID for each rank.
std::unique_ptr<Exchange> make_nccl_exchange(Device& device, Communicator& group);

}  // namespace lamina::cuda
