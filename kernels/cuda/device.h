// One GPU as one rank uses it: memory, the stream on which the rank's work runs in order, and the
// handle of cuBLASLt. Made and used by the rank's own thread.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "kernels/cuda/error.h"
#include "kernels/cuda/waiting.h"
#include "runtime/buffer.h"

namespace lamina::cuda {

/// Number of GPUs that this process may use; 0 also where there is no driver.
int device_count();

class Device {
 public:
  /// `ordinal` < device_count().
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  const cudaDeviceProp& properties() const { return properties_; }
  /// "NVIDIA H100 80GB HBM3, 132 SMs, 80 GB, CUDA 13.0": for people.
  std::string description() const;

  cudaStream_t stream() const { return stream_; }
  /// As long as it lives, work goes on another stream. Nothing may be waited for or allocated then.
  class OtherStream {
   public:
    OtherStream(Device& device, cudaStream_t stream)
        : device_(device), own_(std::exchange(device.stream_, stream)) {}
    ~OtherStream() { device_.stream_ = own_; }
    OtherStream(const OtherStream&) = delete;
    OtherStream& operator=(const OtherStream&) = delete;

   private:
    Device& device_;
    cudaStream_t own_;
  };
  cublasLtHandle_t matrices() const { return matrices_; }
  /// For products, of kWorkspaceBytes; used in the order of the stream.
  void* workspace() { return workspace_.view().data(); }
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

  /// `size` elements of device memory, zeroed. From the run's memory pool; never while a graph is captured.
  template <class T>
  Buffer<T> allocate(std::size_t size) {
    if (size == 0) return {};
    Buffer<T> buffer = own<T>(take(size * sizeof(T)), size);
    clear(buffer.view().data(), size * sizeof(T));
    return buffer;
  }

  /// Ordered on the stream; `host` may be changed when it returns.
  void to_device(const void* host, void* device, std::size_t bytes);
  /// The values are there when it returns: waits for the stream.
  void to_host(const void* device, void* host, std::size_t bytes);
  /// Ordered on the stream; the values are there when it has been waited for. `host` is page-locked.
  void send_to_host(const void* device, void* host, std::size_t bytes);
  void copy(const void* from, void* to, std::size_t bytes);  ///< within the device, ordered on the stream
  void clear(void* memory, std::size_t bytes);               ///< to zeros, ordered on the stream
  /// Until all work on the stream is done. Throws what a check of wait_checks() or end_checks() throws.
  void synchronize();
  /// Asked in every wait of the above for the stream, and once when it has ended. Without any, NVIDIA's own
  /// waits are used.
  WaitChecks& wait_checks() { return wait_checks_; }
  /// Asked when a wait of the above has ended, before the host uses what it waited for.
  EndChecks& end_checks() { return end_checks_; }

 private:
  struct Pool;
  void wait_with_checks();
  void* take(std::size_t bytes);
  static void free(Pool& pool, void* memory);
  template <class T>
  Buffer<T> own(void* memory, std::size_t size) {
    return Buffer<T>(static_cast<T*>(memory), size, [pool = pool_](T* freed) { free(*pool, freed); });
  }

  int ordinal_;
  cudaDeviceProp properties_{};
  std::shared_ptr<Pool> pool_;  ///< outlives the buffers
  cudaStream_t stream_ = nullptr;
  cublasLtHandle_t matrices_ = nullptr;
  Buffer<unsigned char> workspace_;
  WaitChecks wait_checks_;
  EndChecks end_checks_;
  bool gave_up_ = false;  ///< on a wait for the stream, which may never end
};

/// Page-locked host memory: copies from and to it run while the host goes on.
template <class T>
class PinnedArray {
 public:
  PinnedArray() = default;
  explicit PinnedArray(std::size_t size) : size_(size) {
    verify(cudaMallocHost(reinterpret_cast<void**>(&data_), size * sizeof(T)), "cudaMallocHost");
  }
  ~PinnedArray() {
    if (data_ != nullptr) report(cudaFreeHost(data_), "cudaFreeHost");
  }
  PinnedArray(PinnedArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PinnedArray& operator=(PinnedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<T> view() { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lamina::cuda
