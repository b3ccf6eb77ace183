#include <fmt/format.h>

#include <exception>

#include "kernels/backends.h"
#include "kernels/cuda/device.h"

namespace lamina {
namespace {

std::string gpus_found() {
  try {
    const int count = cuda::device_count();
    return count == 0 ? "no GPU found" : fmt::format("{} GPU{} found", count, count == 1 ? "" : "s");
  } catch (const std::exception& error) {
    return fmt::format("GPUs cannot be used: {}", error.what());
  }
}

}  // namespace

std::string cuda_description() {
  return fmt::format("{}.{}, {}", CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, gpus_found());
}

}  // namespace lamina
