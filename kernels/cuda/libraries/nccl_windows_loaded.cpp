#include "kernels/cuda/libraries/nccl_windows.h"
#include "kernels/cuda/libraries/shared_library.h"

namespace lamina::cuda {
namespace {

NcclWindows load() {
  const SharedLibrary library("libnccl.so." + std::to_string(NCCL_MAJOR));
  NcclWindows found{};
  if (!library) return found;
  library.find_if_there("ncclMemAlloc", found.MemAlloc);
  library.find_if_there("ncclMemFree", found.MemFree);
  library.find_if_there("ncclCommWindowRegister", found.CommWindowRegister);
  library.find_if_there("ncclCommWindowDeregister", found.CommWindowDeregister);
  library.find_if_there("ncclTeamLsa", found.TeamLsa);
  return found;
}

}  // namespace

const NcclWindows* find_nccl_windows() {
  static const NcclWindows found = load();
  const bool has_all = found.MemAlloc != nullptr && found.MemFree != nullptr &&
                       found.CommWindowRegister != nullptr && found.CommWindowDeregister != nullptr &&
                       found.TeamLsa != nullptr;
  return has_all ? &found : nullptr;
}

}  // namespace lamina::cuda
