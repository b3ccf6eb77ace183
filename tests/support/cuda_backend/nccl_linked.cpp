// For tests, whose NCCL connects threads and is linked.
#include "kernels/cuda/libraries/nccl.h"
#include "kernels/cuda/libraries/nccl_windows.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

namespace lamina::cuda {

const Nccl* find_nccl() {
  static const Nccl functions{
      .GetVersion = ncclGetVersion,
      .GetErrorString = ncclGetErrorString,
      .GetLastError = ncclGetLastError,
      .GetUniqueId = ncclGetUniqueId,
      .CommInitRankConfig = ncclCommInitRankConfig,
      .CommGetAsyncError = ncclCommGetAsyncError,
      .CommFinalize = ncclCommFinalize,
      .CommDestroy = ncclCommDestroy,
      .CommAbort = ncclCommAbort,
      .GroupStart = ncclGroupStart,
      .GroupEnd = ncclGroupEnd,
      .AllGather = ncclAllGather,
      .Send = ncclSend,
      .Recv = ncclRecv,
  };
  return nccl_on_cpu::is_present() ? &functions : nullptr;
}

const NcclWindows* find_nccl_windows() {
  static const NcclWindows functions{
      .MemAlloc = ncclMemAlloc,
      .MemFree = ncclMemFree,
      .CommWindowRegister = ncclCommWindowRegister,
      .CommWindowDeregister = ncclCommWindowDeregister,
      .TeamLsa = ncclTeamLsa,
  };
  return &functions;
}

std::string why_no_nccl() { return "a test has taken it away"; }

}  // namespace lamina::cuda
