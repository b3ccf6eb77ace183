#include "kernels/cuda/libraries/nccl.h"

#include <fmt/format.h>

#include "runtime/error.h"

namespace lamina::cuda {

const Nccl& nccl() { return *find_nccl(); }

int nccl_version() {
  if (find_nccl() == nullptr) return 0;
  int version = 0;
  verify(nccl().GetVersion(&version), "ncclGetVersion");
  return version;
}

std::string nccl_version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void verify(ncclResult_t code, const char* call, std::source_location place) {
  if (code == ncclSuccess) return;
  check(false,
        fmt::format("{} failed: {}, {}", call, nccl().GetErrorString(code), nccl().GetLastError(nullptr)),
        place);
}

}  // namespace lamina::cuda
