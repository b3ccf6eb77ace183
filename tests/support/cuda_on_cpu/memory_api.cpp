// The calls that allocate, copy and fill.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda_on_cpu/runtime_api.h"
#include "tests/support/cuda_on_cpu/graphs.h"
#include "tests/support/cuda_on_cpu/host.h"
#include "tests/support/cuda_on_cpu/memory.h"
#include "tests/support/cuda_on_cpu/streams.h"

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace)

/// Memory is given out as from no pool at all; a pool only counts.
struct CUmemPoolHandle_st {
  int device = 0;
  unsigned long long threshold = 0;
};

namespace {

Handles<CUmemPoolHandle_st>& pools() {
  static auto& of_the_process = *new Handles<CUmemPoolHandle_st>;
  return of_the_process;
}
cudaMemPool_t default_pool(int device) {
  static std::mutex& mutex = *new std::mutex;
  static auto& of_devices = *new std::vector<cudaMemPool_t>(kMaxDevices);
  const std::lock_guard lock(mutex);
  auto& pool = of_devices[static_cast<std::size_t>(device)];
  if (pool == nullptr)
    pool = pools().add(std::make_shared<CUmemPoolHandle_st>(CUmemPoolHandle_st{device, 0}));
  return pool;
}

cudaError_t refused_in_captures() {
  const std::lock_guard lock(streams_mutex());
  return refuse_in_captures_of_others();
}
bool is_capturing(cudaStream_t handle) {
  const auto stream = find_stream(handle);
  const std::lock_guard lock(streams_mutex());
  if (!stream || !stream->capture) return false;
  refuse_in_capture(*stream);
  return true;
}

cudaError_t allocate(void** pointer, std::size_t bytes, int device) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = allocate_device(bytes, device);
  if (*pointer != nullptr) return cudaSuccess;
  return finish(cudaErrorMemoryAllocation, "no " + std::to_string(bytes) + " bytes are left on device " +
                                               std::to_string(device) + ", which uses " +
                                               std::to_string(device_bytes_in_use(device)));
}

cudaError_t free_now(void* pointer) {
  return pointer == nullptr || free_device(pointer) ? cudaSuccess : cudaErrorInvalidValue;
}

/// How memory lies to the device.
enum class Side { device, page_locked, pageable };
Side side_of(const void* pointer) {
  if (in_device_space(pointer)) return Side::device;
  return is_page_locked(pointer) ? Side::page_locked : Side::pageable;
}
bool is_allowed(const void* pointer, std::size_t bytes, bool must_be_device, bool must_be_host) {
  if (in_device_space(pointer)) return !must_be_host && is_device(pointer, bytes);
  return !must_be_device;
}

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  cudaMemcpyKind kind;
};

cudaError_t check_copy(const Copy& copy) {
  const bool from_device = copy.kind == cudaMemcpyDeviceToHost || copy.kind == cudaMemcpyDeviceToDevice;
  const bool to_device = copy.kind == cudaMemcpyHostToDevice || copy.kind == cudaMemcpyDeviceToDevice;
  if (copy.kind < cudaMemcpyHostToHost || copy.kind > cudaMemcpyDefault)
    return finish(cudaErrorInvalidMemcpyDirection);
  const bool any = copy.kind == cudaMemcpyDefault;
  if (!is_allowed(copy.from, copy.bytes, from_device, !any && !from_device))
    return finish(cudaErrorInvalidValue,
                  "the source of a copy is not where its kind says, or not all of it is allocated");
  if (!is_allowed(copy.to, copy.bytes, to_device, !any && !to_device))
    return finish(cudaErrorInvalidValue,
                  "the destination of a copy is not where its kind says, or not all of it is allocated");
  return cudaSuccess;
}

/// The host's side of a copy may be used later only where it is page-locked.
cudaError_t copy_async(const Copy& copy, cudaStream_t handle) {
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  bool captures = false;
  {
    const std::lock_guard lock(streams_mutex());
    captures = stream->capture != nullptr;
  }
  const auto plain = [copy] {
    std::memmove(copy.to, copy.from, copy.bytes);
    return cudaSuccess;
  };
  if (captures) return issue(handle, plain);
  if (settings().lazy && side_of(copy.from) == Side::pageable) {
    const auto* first = static_cast<const std::byte*>(copy.from);
    return issue(handle, [copy, staged = std::vector<std::byte>(first, first + copy.bytes)] {
      std::memcpy(copy.to, staged.data(), copy.bytes);
      return cudaSuccess;
    });
  }
  const cudaError_t error = issue(handle, plain);
  if (error != cudaSuccess || side_of(copy.to) != Side::pageable) return error;
  std::unique_lock lock(streams_mutex());
  drain(lock, *stream);
  host_thread().past.add(stream->past);
  close_own_memory();
  return cudaSuccess;
}

cudaError_t check_fill(const void* pointer, std::size_t bytes) {
  if (is_device(pointer, bytes)) return cudaSuccess;
  return finish(cudaErrorInvalidValue, "a fill of memory that is not all allocated on the device");
}

}  // namespace

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (const auto error = obstacle()) return finish(error);
  if (const auto error = refused_in_captures()) return finish(error);
  return allocate(pointer, bytes, host_thread().device);
}

cudaError_t cudaFree(void* pointer) {
  if (const auto error = obstacle()) return finish(error);
  if (const auto error = refused_in_captures()) return finish(error);
  {
    std::unique_lock lock(streams_mutex());
    drain_own(lock, true);
  }
  return finish(free_now(pointer));
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  if (!find_stream(stream)) return finish(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
  return allocate(pointer, bytes, host_thread().device);
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, std::size_t bytes, cudaMemPool_t handle,
                                    cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  const auto pool = pools().find(handle);
  if (!pool) return finish(cudaErrorInvalidValue);
  if (!find_stream(stream)) return finish(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
  return allocate(pointer, bytes, pool->device);
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  if (!find_stream(stream)) return finish(cudaErrorInvalidResourceHandle);
  if (is_capturing(stream)) return finish(cudaErrorStreamCaptureUnsupported);
  if (pointer == nullptr) return cudaSuccess;
  const auto found = find_device(pointer);
  if (!found || found->start != pointer) return finish(cudaErrorInvalidValue);
  return issue(stream, [pointer] { return free_now(pointer); });
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  if (const auto error = obstacle()) return finish(error);
  if (const auto error = refused_in_captures()) return finish(error);
  *pointer = allocate_host(bytes);
  return *pointer == nullptr ? finish(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  if (const auto error = obstacle()) return finish(error);
  if (const auto error = refused_in_captures()) return finish(error);
  {
    std::unique_lock lock(streams_mutex());
    drain_own(lock, true);
  }
  return finish(pointer == nullptr || free_host(pointer) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  if (const auto error = obstacle()) return finish(error);
  const std::size_t used = device_bytes_in_use(host_thread().device);
  *total = settings().memory;
  *available = *total > used ? *total - used : 0;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  if (const auto error = obstacle()) return finish(error);
  auto* address = const_cast<void*>(pointer);
  *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, nullptr};
  if (const auto found = find_device(pointer)) {
    *attributes = {cudaMemoryTypeDevice, found->device, address, nullptr};
  } else if (is_page_locked(pointer)) {
    *attributes = {cudaMemoryTypeHost, host_thread().device, address, address};
  } else {
    attributes->hostPointer = address;
  }
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  if (const auto error = obstacle()) return finish(error);
  if (properties->allocType != cudaMemAllocationTypePinned ||
      properties->location.type != cudaMemLocationTypeDevice || properties->location.id < 0 ||
      properties->location.id >= settings().devices)
    return finish(cudaErrorInvalidValue);
  *pool = pools().add(std::make_shared<CUmemPoolHandle_st>(CUmemPoolHandle_st{properties->location.id, 0}));
  return cudaSuccess;
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return finish(pools().remove(pool) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  const auto pool = pools().find(handle);
  if (!pool || value == nullptr) return finish(cudaErrorInvalidValue);
  if (attribute == cudaMemPoolAttrReleaseThreshold)
    std::memcpy(&pool->threshold, value, sizeof pool->threshold);
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  const auto pool = pools().find(handle);
  if (!pool || value == nullptr) return finish(cudaErrorInvalidValue);
  unsigned long long answer = 0;
  switch (attribute) {
    case cudaMemPoolAttrReleaseThreshold:
      answer = pool->threshold;
      break;
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
      answer = device_bytes_in_use(pool->device);
      break;
    default:
      return finish(cudaErrorNotSupported);
  }
  std::memcpy(value, &answer, sizeof answer);
  return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t) {
  return finish(pools().find(pool) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  if (const auto error = obstacle()) return finish(error);
  if (device < 0 || device >= settings().devices) return finish(cudaErrorInvalidDevice);
  *pool = default_pool(device);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (const auto error = obstacle()) return finish(error);
  if (const auto error = refused_in_captures()) return finish(error);
  if (bytes == 0) return cudaSuccess;
  const Copy copy{to, from, bytes, kind};
  if (const auto error = check_copy(copy)) return error;
  return copy_async(copy, nullptr);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  if (bytes == 0) return finish(find_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle);
  const Copy copy{to, from, bytes, kind};
  if (const auto error = check_copy(copy)) return error;
  return copy_async(copy, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return finish(cudaErrorInvalidValue);
  for (std::size_t row = 0; row < height; ++row) {
    if (const auto error =
            cudaMemcpyAsync(static_cast<std::byte*>(to) + row * to_pitch,
                            static_cast<const std::byte*>(from) + row * from_pitch, width, kind, stream))
      return error;
  }
  return cudaSuccess;
}

cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes) {
  if (const auto error = refused_in_captures()) return finish(error);
  return cudaMemsetAsync(pointer, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  if (bytes == 0) return finish(find_stream(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle);
  if (const auto error = check_fill(pointer, bytes)) return error;
  return issue(stream, [pointer, value, bytes] {
    fill_device(pointer, value, bytes);
    return cudaSuccess;
  });
}
