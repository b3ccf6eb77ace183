// The functions of NCCL for memory that kernels of all ranks reach; beside those of nccl.h, as older versions
// lack them.
#pragma once

#include <nccl.h>
#include <nccl_device/core.h>

#include "kernels/cuda/libraries/nccl.h"

namespace lamina::cuda {

struct NcclWindows {
  decltype(&ncclMemAlloc) MemAlloc;
  decltype(&ncclMemFree) MemFree;
  decltype(&ncclCommWindowRegister) CommWindowRegister;
  decltype(&ncclCommWindowDeregister) CommWindowDeregister;
  ncclTeam_t (*TeamLsa)(ncclComm_t communicator);
};

/// Null where the library, or one of them, is missing.
const NcclWindows* find_nccl_windows();

/// The first whose device interface has windows.
constexpr int kOldestNcclWithWindows = NCCL_VERSION(2, 28, 0);

}  // namespace lamina::cuda
