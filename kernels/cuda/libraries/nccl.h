// NCCL, loaded when several ranks first use GPUs: a machine without it can still train.
#pragma once

#include <nccl.h>

#include <source_location>
#include <string>

namespace lamina::cuda {

/// The functions of the library, under their names without the prefix.
struct Nccl {
  decltype(&ncclGetVersion) GetVersion;
  decltype(&ncclGetErrorString) GetErrorString;
  decltype(&ncclGetLastError) GetLastError;
  decltype(&ncclGetUniqueId) GetUniqueId;
  decltype(&ncclCommInitRankConfig) CommInitRankConfig;
  decltype(&ncclCommGetAsyncError) CommGetAsyncError;
  decltype(&ncclCommFinalize) CommFinalize;
  decltype(&ncclCommDestroy) CommDestroy;
  decltype(&ncclCommAbort) CommAbort;
  decltype(&ncclGroupStart) GroupStart;
  decltype(&ncclGroupEnd) GroupEnd;
  decltype(&ncclAllGather) AllGather;
  decltype(&ncclSend) Send;
  decltype(&ncclRecv) Recv;
};

/// Loads the library at the first call; null where that cannot be done. A version older than kOldestNccl may
/// lack functions.
const Nccl* find_nccl();
/// Why not, as the system says.
std::string why_no_nccl();
/// Where it was found.
const Nccl& nccl();

constexpr int kOldestNccl = NCCL_VERSION(2, 19, 0);

/// As NCCL counts: 22809 is 2.28.9. 0 where there is none.
int nccl_version();
/// "2.28.9"
std::string nccl_version_text(int version);

/// Throws InternalError with NCCL's words and the caller's place, unless `code` is success. For functions of
/// no communicator; NcclCommunicator checks the others.
void verify(ncclResult_t code, const char* call,
            std::source_location place = std::source_location::current());

}  // namespace lamina::cuda
