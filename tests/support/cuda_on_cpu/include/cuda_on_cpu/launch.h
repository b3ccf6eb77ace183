// Starting kernels. Their arguments are kept by value, as a GPU keeps them; so a launch needs their types,
// and the functions that take `void** arguments` are absent: use cudaLaunchKernelEx.
#pragma once

#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_on_cpu/runtime_api.h"

// NOLINTBEGIN(readability-identifier-naming): NVIDIA's names
enum cudaLaunchAttributeID {
  cudaLaunchAttributeIgnore = 0,
  cudaLaunchAttributeCooperative = 2,
  cudaLaunchAttributeClusterDimension = 4,
  cudaLaunchAttributeProgrammaticStreamSerialization = 6,
  cudaLaunchAttributePriority = 8
};
union cudaLaunchAttributeValue {
  char pad[64];
  int cooperative;
  struct {
    unsigned x, y, z;
  } clusterDim;
  int programmaticStreamSerializationAllowed;
  int priority;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
// NOLINTEND(readability-identifier-naming)

namespace cuda_on_cpu {

/// What a kernel is started with: one call of `body` is one CUDA thread.
struct Kernel {
  const void* function = nullptr;
  std::function<void()> body;
  std::vector<const void*> pointers;  ///< those of its arguments that are pointers
};
cudaError_t launch(const cudaLaunchConfig_t* config, Kernel kernel);

template <class T>
void note_pointer(std::vector<const void*>& pointers, const T& argument) {
  if constexpr (std::is_pointer_v<T>) {
    if constexpr (!std::is_function_v<std::remove_pointer_t<T>>)
      pointers.push_back(const_cast<const void*>(static_cast<const volatile void*>(argument)));
  }
}

}  // namespace cuda_on_cpu

// NOLINTNEXTLINE(readability-identifier-naming)
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  static_assert((std::is_trivially_copyable_v<std::remove_cvref_t<Parameters>> && ...),
                "a GPU gets the bytes of a kernel's arguments");
  std::tuple<std::remove_cv_t<Parameters>...> values(
      static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  cuda_on_cpu::Kernel launched;
  launched.function = reinterpret_cast<const void*>(kernel);
  std::apply([&](const auto&... value) { (cuda_on_cpu::note_pointer(launched.pointers, value), ...); },
             values);
  launched.body = [kernel, values] { std::apply(kernel, values); };
  return cuda_on_cpu::launch(config, std::move(launched));
}
