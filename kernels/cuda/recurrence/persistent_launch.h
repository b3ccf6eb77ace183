// Starting a persistent kernel: which instance of it, and only where all its blocks run at once.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "runtime/error.h"

namespace lamina::cuda {

/// task(kernel) with Kernels::kernel<units, row tiles> of the grid.
template <class Kernels, class Task>
void with_kernel(const PersistentGrid& grid, const Task& task) {
  const bool one_tile = grid.row_tiles == 1;
  switch (grid.units) {
    case 8:
      return one_tile ? task(Kernels::template kernel<8, 1>) : task(Kernels::template kernel<8, 4>);
    case 16:
      return one_tile ? task(Kernels::template kernel<16, 1>) : task(Kernels::template kernel<16, 2>);
    case 32:
      return task(Kernels::template kernel<32, 1>);
    default:
      check(false, "persistent recurrence: no kernel for so many units of a member");
  }
}

template <class... Parameters>
void allow_shared_memory(void (*kernel)(Parameters...), std::size_t bytes) {
  verify(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
         "cudaFuncSetAttribute");
}

/// Blocks of a multiprocessor.
template <class... Parameters>
int resident_blocks(void (*kernel)(Parameters...), std::size_t shared_bytes) {
  allow_shared_memory(kernel, shared_bytes);
  int blocks = 0;
  verify(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kPersistentThreads, shared_bytes),
         "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return blocks;
}

template <class Argument, class... Parameters>
void launch_persistent(const Device& device, void (*kernel)(Parameters...), int blocks,
                       std::size_t shared_bytes, const Argument& argument) {
  allow_shared_memory(kernel, shared_bytes);
  launch(device, kernel,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(kPersistentThreads),
          .shared_bytes = shared_bytes,
          .cooperative = true},
         argument);
}

int resident_forward_blocks(const PersistentGrid& grid, std::size_t shared_bytes);
int resident_backward_blocks(const PersistentGrid& grid, std::size_t shared_bytes);

}  // namespace lamina::cuda
