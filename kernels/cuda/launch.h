// Starts kernels on a device's stream.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

/// Threads of a grid.
struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;  ///< dynamic shared memory of a block
  bool cooperative = false;      ///< all blocks run at once, or the launch fails
};

/// Enough blocks of 256 threads for one thread per element, at most `most` blocks: kernels loop.
inline LaunchShape for_elements(std::size_t count, unsigned most = 65535) {
  const std::size_t blocks = (count + 255) / 256;
  return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(256)};
}

/// kernel<<<shape>>>(arguments…) on the device's stream. A grid without blocks starts nothing.
template <class... Parameters, class... Arguments>
void launch(const Device& device, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments&&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = shape.grid;
  configuration.blockDim = shape.block;
  configuration.dynamicSmemBytes = shape.shared_bytes;
  configuration.stream = device.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = shape.cooperative ? 1 : 0;
  verify(cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...),
         "cudaLaunchKernelEx");
}

}  // namespace lamina::cuda
