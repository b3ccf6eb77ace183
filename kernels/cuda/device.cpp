#include "kernels/cuda/device.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <limits>

#include "kernels/cuda/libraries/cublas_lt.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

/// What is left on a stream that was given up may take this long.
constexpr std::chrono::seconds kEndLimit{5};
/// The driver takes as many bytes at once; with more from pageable memory it may wait for the stream.
constexpr std::size_t kTakenAtOnce = std::size_t{64} << 10;

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) {
    static_cast<void>(cudaGetLastError());  // it is an answer, not an error
    return 0;
  }
  verify(code, "cudaGetDeviceCount");
  return count;
}

/// The memory of one run: what is freed stays in the pool, so that what is taken again costs nothing.
struct Device::Pool {
  explicit Pool(int ordinal) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = ordinal;
    verify(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
    std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
    verify(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
    verify(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  ~Pool() {
    if (is_stuck) return;  // its end would be waited for
    report(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    report(cudaMemPoolDestroy(pool), "cudaMemPoolDestroy");
    report(cudaStreamDestroy(stream), "cudaStreamDestroy");
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  cudaMemPool_t pool = nullptr;
  cudaStream_t stream = nullptr;
  bool is_stuck = false;
};

Device::Device(int ordinal) : ordinal_(ordinal) {
  verify(cudaSetDevice(ordinal), "cudaSetDevice");
  verify(cudaGetDeviceProperties(&properties_, ordinal), "cudaGetDeviceProperties");
  pool_ = std::make_shared<Pool>(ordinal);
  stream_ = pool_->stream;
  verify(cublas_lt().Create(&matrices_), "cublasLtCreate");
  workspace_ = own<unsigned char>(take(kWorkspaceBytes), kWorkspaceBytes);
}

Device::~Device() {
  const auto has_ended = [&] { return cudaStreamQuery(stream_) != cudaErrorNotReady; };
  if (gave_up_ && !wait_within(kEndLimit, has_ended)) {
    std::fputs("lamina: work on the GPU does not end, it is left behind\n", stderr);
    pool_->is_stuck = true;
    return;
  }
  report(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  if (matrices_ != nullptr) cublas_lt().Destroy(matrices_);
}

std::string Device::description() const {
  int version = 0;
  verify(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
  return fmt::format("{}, {} SMs, {:.0f} GB, CUDA {}.{}", properties_.name, properties_.multiProcessorCount,
                     static_cast<double>(properties_.totalGlobalMem) / 1e9, version / 1000,
                     version % 1000 / 10);
}

void* Device::take(std::size_t bytes) {
  check(stream_ == pool_->stream, "memory belongs to the device's own stream");
  void* memory = nullptr;
  verify(cudaMallocFromPoolAsync(&memory, bytes, pool_->pool, stream_), "cudaMallocFromPoolAsync");
  return memory;
}

void Device::free(Pool& pool, void* memory) { report(cudaFreeAsync(memory, pool.stream), "cudaFreeAsync"); }

void Device::to_device(const void* host, void* device, std::size_t bytes) {
  if (bytes > kTakenAtOnce && !wait_checks_.empty()) synchronize();
  // From pageable memory: the runtime has taken the values when it returns.
  verify(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync to the GPU");
}

void Device::to_host(const void* device, void* host, std::size_t bytes) {
  if (!wait_checks_.empty()) synchronize();  // else the copy to pageable memory would wait
  send_to_host(device, host, bytes);
  synchronize();
}

void Device::send_to_host(const void* device, void* host, std::size_t bytes) {
  verify(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_),
         "cudaMemcpyAsync from the GPU");
}

void Device::copy(const void* from, void* to, std::size_t bytes) {
  verify(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "cudaMemcpyAsync on the GPU");
}

void Device::clear(void* memory, std::size_t bytes) {
  verify(cudaMemsetAsync(memory, 0, bytes, stream_), "cudaMemsetAsync");
}

void Device::synchronize() {
  check(stream_ == pool_->stream, "only the device's own stream is waited for");
  try {
    wait_checks_.empty() ? verify(cudaStreamSynchronize(stream_), "cudaStreamSynchronize")
                         : wait_with_checks();
  } catch (...) {
    gave_up_ = true;
    throw;
  }
  end_checks_.ask();
}

void Device::wait_with_checks() {
  cudaError_t code = cudaErrorNotReady;
  const auto has_ended = [&] { return (code = cudaStreamQuery(stream_)) != cudaErrorNotReady; };
  wait_until(has_ended, [&](std::chrono::nanoseconds waited) { wait_checks_.ask(waited); });
  static_cast<void>(cudaGetLastError());  // "not ready" was an answer, not an error
  verify(code, "cudaStreamQuery");
  wait_checks_.ask(std::chrono::nanoseconds(0));
}

}  // namespace lamina::cuda
