#include "tests/support/cuda_on_cpu/host.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/cuda_on_cpu/memory.h"

namespace cuda_on_cpu {

Settings& settings() {
  static Settings& of_the_process = *new Settings;
  return of_the_process;
}

HostThread& host_thread() {
  thread_local HostThread of_this_thread;
  return of_this_thread;
}

cudaError_t finish(cudaError_t error) {
  HostThread& thread = host_thread();
  if (thread.lasting != cudaSuccess) error = thread.lasting;
  if (error != cudaSuccess) thread.last = error;
  return error;
}

cudaError_t finish(cudaError_t error, std::string why) {
  HostThread& thread = host_thread();
  if (thread.lasting == cudaSuccess && error != cudaSuccess) thread.complaint = std::move(why);
  return finish(error);
}

void fail_for_good(cudaError_t error, const std::string& why) {
  std::fprintf(stderr, "cuda_on_cpu: %s\n", why.c_str());
  HostThread& thread = host_thread();
  if (thread.lasting != cudaSuccess) return;
  thread.complaint = why;
  thread.lasting = thread.last = error;
}

cudaError_t obstacle() {
  if (settings().devices == 0) return cudaErrorNoDevice;
  return host_thread().lasting;
}

void reset() {
  Settings& all = settings();
  all.devices = 1;
  all.multiprocessors = 4;
  all.memory = std::size_t{64} << 30;
  all.seed = 0;
  all.lazy = false;
  all.patience = 60;
  separate_memory(first_separation());
  forget_errors();
}

void set_device_count(int devices) { settings().devices = std::clamp(devices, 0, kMaxDevices); }
void set_multiprocessors(int count) { settings().multiprocessors = count; }
void set_memory(std::size_t bytes) { settings().memory = bytes; }
std::size_t memory_in_use(int device) { return device_bytes_in_use(device); }
void set_schedule_seed(unsigned seed) { settings().seed = seed; }
void set_lazy_streams(bool lazy) { settings().lazy = lazy; }
void set_separation(Separation separation) { separate_memory(separation); }
void set_patience(double seconds) { settings().patience = seconds; }

std::string last_complaint() { return host_thread().complaint; }

void forget_errors() {
  HostThread& thread = host_thread();
  thread.last = thread.lasting = cudaSuccess;
  thread.complaint.clear();
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::finish;
using cuda_on_cpu::host_thread;
using cuda_on_cpu::obstacle;
using cuda_on_cpu::settings;

namespace {

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};

constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "driver too old for the runtime"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation is not possible in this state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorCooperativeLaunchTooLarge, "cudaErrorCooperativeLaunchTooLarge",
     "too many blocks in cooperative launch"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "operation not permitted"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorText& text_of(cudaError_t error) {
  const auto* found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                   [&](const ErrorText& known) { return known.error == error; });
  return found == std::end(kErrors) ? *std::prev(found) : *found;
}

bool is_device_number(int device) { return device >= 0 && device < settings().devices; }

constexpr int kVersion = CUDART_VERSION;
constexpr int kMajor = 9, kMinor = 0;  // compute capability: an H100's
constexpr int kRegisters = 65536;
constexpr int kL2Bytes = 50 << 20;

}  // namespace

cudaError_t cudaGetLastError() {
  auto& thread = host_thread();
  const cudaError_t error = thread.last;
  thread.last = thread.lasting;
  return error;
}
cudaError_t cudaPeekAtLastError() { return host_thread().last; }
const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return text_of(error).text; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return finish(obstacle());
}

cudaError_t cudaSetDevice(int device) {
  if (const auto error = obstacle()) return finish(error);
  if (!is_device_number(device)) return finish(cudaErrorInvalidDevice);
  host_thread().device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = host_thread().device;
  return finish(obstacle());
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const auto error = obstacle()) return finish(error);
  if (!is_device_number(device)) return finish(cudaErrorInvalidDevice);
  cudaDeviceProp all = {};
  std::snprintf(all.name, sizeof all.name, "emulated GPU");
  all.totalGlobalMem = settings().memory;
  all.sharedMemPerBlock = cuda_on_cpu::kSharedPerBlock;
  all.regsPerBlock = kRegisters;
  all.warpSize = 32;
  all.maxThreadsPerBlock = cuda_on_cpu::kMaxThreadsPerBlock;
  all.maxThreadsDim[0] = all.maxThreadsDim[1] = 1024;
  all.maxThreadsDim[2] = 64;
  all.maxGridSize[0] = 2147483647;
  all.maxGridSize[1] = all.maxGridSize[2] = 65535;
  all.totalConstMem = 65536;
  all.major = kMajor;
  all.minor = kMinor;
  all.multiProcessorCount = settings().multiprocessors;
  all.canMapHostMemory = 1;
  all.concurrentKernels = 1;
  all.pciBusID = device + 1;
  all.asyncEngineCount = 3;
  all.unifiedAddressing = 1;
  all.memoryBusWidth = 5120;
  all.l2CacheSize = kL2Bytes;
  all.maxThreadsPerMultiProcessor = cuda_on_cpu::kMaxThreadsPerMultiprocessor;
  all.streamPrioritiesSupported = 1;
  all.sharedMemPerMultiprocessor = cuda_on_cpu::kSharedPerMultiprocessor;
  all.regsPerMultiprocessor = kRegisters;
  all.cooperativeLaunch = 1;
  all.sharedMemPerBlockOptin = cuda_on_cpu::kSharedPerBlockOptin;
  all.maxBlocksPerMultiProcessor = cuda_on_cpu::kMaxBlocksPerMultiprocessor;
  all.reservedSharedMemPerBlock = cuda_on_cpu::kSharedReserved;
  all.memoryPoolsSupported = 1;
  *properties = all;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp all;
  if (const auto error = cudaGetDeviceProperties(&all, device)) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = all.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxBlockDimX:
      *value = all.maxThreadsDim[0];
      break;
    case cudaDevAttrMaxBlockDimY:
      *value = all.maxThreadsDim[1];
      break;
    case cudaDevAttrMaxBlockDimZ:
      *value = all.maxThreadsDim[2];
      break;
    case cudaDevAttrMaxGridDimX:
      *value = all.maxGridSize[0];
      break;
    case cudaDevAttrMaxGridDimY:
      *value = all.maxGridSize[1];
      break;
    case cudaDevAttrMaxGridDimZ:
      *value = all.maxGridSize[2];
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(all.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = all.warpSize;
      break;
    case cudaDevAttrMaxRegistersPerBlock:
      *value = all.regsPerBlock;
      break;
    case cudaDevAttrClockRate:
      *value = 1000000;
      break;  // kHz: clock64() counts nanoseconds
    case cudaDevAttrMultiProcessorCount:
      *value = all.multiProcessorCount;
      break;
    case cudaDevAttrIntegrated:
      *value = all.integrated;
      break;
    case cudaDevAttrConcurrentKernels:
      *value = all.concurrentKernels;
      break;
    case cudaDevAttrL2CacheSize:
      *value = all.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = all.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrUnifiedAddressing:
      *value = all.unifiedAddressing;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = all.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = all.minor;
      break;
    case cudaDevAttrStreamPrioritiesSupported:
      *value = all.streamPrioritiesSupported;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(all.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      *value = all.regsPerMultiprocessor;
      break;
    case cudaDevAttrCooperativeLaunch:
      *value = all.cooperativeLaunch;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(all.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *value = all.maxBlocksPerMultiProcessor;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *value = static_cast<int>(all.reservedSharedMemPerBlock);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = all.memoryPoolsSupported;
      break;
    default:
      return finish(cudaErrorInvalidValue, "cudaDeviceGetAttribute: not an attribute we know");
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return finish(obstacle());
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  if (const auto error = obstacle()) return finish(error);
  if (!is_device_number(device)) return finish(cudaErrorInvalidDevice);
  if (std::snprintf(id, static_cast<std::size_t>(size), "0000:%02X:00.0", device + 1) >= size)
    return finish(cudaErrorInvalidValue);
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().devices == 0 ? 0 : kVersion;
  return cudaSuccess;
}
