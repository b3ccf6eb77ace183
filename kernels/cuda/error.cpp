#include "kernels/cuda/error.h"

#include <cstdio>
#include <string>

#include "kernels/cuda/libraries/cublas_lt.h"
#include "runtime/error.h"

namespace lamina::cuda {

void verify(cudaError_t code, const char* call, std::source_location place) {
  if (code == cudaSuccess) return;
  if (code == cudaErrorMemoryAllocation)
    throw UserError(std::string("out of memory on the GPU (") + call +
                    "): use a smaller model or batch, more --passes, or more ranks");
  check(false, std::string(call) + " failed: " + cudaGetErrorName(code) + ", " + cudaGetErrorString(code),
        place);
}

void verify(cublasStatus_t code, const char* call, std::source_location place) {
  if (code == CUBLAS_STATUS_SUCCESS) return;
  check(false, std::string(call) + " failed: " + cublas_lt().GetStatusString(code), place);
}

void report(cudaError_t code, const char* call) noexcept {
  if (code != cudaSuccess) std::fprintf(stderr, "lamina: %s failed: %s\n", call, cudaGetErrorString(code));
}

}  // namespace lamina::cuda
