// Runs the threads of a kernel: fibers of this OS thread that hand over to each other where they wait.
//
// A thread that never waits needs no fiber of its own: the next one runs on the same stack. The blocks of an
// ordinary launch run one after another, those of a cooperative one together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cuda_on_cpu/language.h"
#include "cuda_on_cpu/runtime_api.h"

namespace cuda_on_cpu {

struct Grid {
  const void* function = nullptr;
  std::function<void()> body;  ///< of one CUDA thread
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
  bool cooperative = false;
};

/// Runs it to its end. Where it cannot, fails for good (host.h) and gives the error.
cudaError_t run(const Grid& grid);

/// For the handler of faults: the CUDA thread that runs on this OS thread, in words; the end of its stack.
void describe_running_thread(char* text, std::size_t size);
bool is_stack_guard(const void* address);

}  // namespace cuda_on_cpu
