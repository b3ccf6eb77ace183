// Codes of CUDA's libraries as errors: each call is checked, and a failed one says which and where.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <source_location>

namespace lamina::cuda {

/// Throws InternalError with the code's name and the caller's place, unless `code` is success. A later call
/// may report what an earlier kernel did. Out of memory is a UserError.
void verify(cudaError_t code, const char* call, std::source_location place = std::source_location::current());
void verify(cublasStatus_t code, const char* call,
            std::source_location place = std::source_location::current());

/// For destructors, which must not throw: says it on stderr.
void report(cudaError_t code, const char* call) noexcept;

}  // namespace lamina::cuda
