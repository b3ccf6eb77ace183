#include "kernels/cuda/libraries/nccl.h"
#include "kernels/cuda/libraries/shared_library.h"

namespace lamina::cuda {
namespace {

const SharedLibrary& library() {
  static const SharedLibrary loaded("libnccl.so." + std::to_string(NCCL_MAJOR));
  return loaded;
}

Nccl load() {
  Nccl found{};
  library().find_if_there("ncclGetVersion", found.GetVersion);
  library().find_if_there("ncclGetErrorString", found.GetErrorString);
  library().find_if_there("ncclGetLastError", found.GetLastError);
  library().find_if_there("ncclGetUniqueId", found.GetUniqueId);
  library().find_if_there("ncclCommInitRankConfig", found.CommInitRankConfig);
  library().find_if_there("ncclCommGetAsyncError", found.CommGetAsyncError);
  library().find_if_there("ncclCommFinalize", found.CommFinalize);
  library().find_if_there("ncclCommDestroy", found.CommDestroy);
  library().find_if_there("ncclCommAbort", found.CommAbort);
  library().find_if_there("ncclGroupStart", found.GroupStart);
  library().find_if_there("ncclGroupEnd", found.GroupEnd);
  library().find_if_there("ncclAllGather", found.AllGather);
  library().find_if_there("ncclSend", found.Send);
  library().find_if_there("ncclRecv", found.Recv);
  return found;
}

}  // namespace

const Nccl* find_nccl() {
  static const Nccl functions = library() ? load() : Nccl{};
  return library() ? &functions : nullptr;
}

std::string why_no_nccl() { return library().error(); }

}  // namespace lamina::cuda
