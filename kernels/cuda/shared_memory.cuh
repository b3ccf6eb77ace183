// The dynamic shared memory of a block.
#pragma once

#include <cuda_runtime.h>

namespace lamina::cuda {

/// Its beginning, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
#ifdef LAMINA_CUDA_ON_CPU  // tests run kernels on CPUs, where no compiler knows of it
  return static_cast<T*>(cuda_on_cpu::emulated_dynamic_shared_memory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

}  // namespace lamina::cuda
