// Small host arrays that kernels read: copied through page-locked memory while the host goes on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/cuda/device.h"
#include "runtime/error.h"

namespace lamina::cuda {

template <class T>
class Upload {
 public:
  /// Room for `capacity` values.
  Upload(Device& device, std::size_t capacity)
      : device_(device), staged_(std::max<std::size_t>(capacity, 1)), values_(device.allocate<T>(capacity)) {
    verify(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  ~Upload() {
    report(cudaEventSynchronize(copied_), "cudaEventSynchronize");  // the page-locked memory goes
    report(cudaEventDestroy(copied_), "cudaEventDestroy");
  }
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /// Where the next values are put together; waits until the values before have left.
  std::span<T> stage() {
    verify(cudaEventSynchronize(copied_), "cudaEventSynchronize");
    return staged_.view();
  }
  /// The first `count` staged values go to the device, ordered on the stream.
  const T* send(std::size_t count) {
    check(count <= values_.size(), "upload: more than room was made for");
    if (count > 0) device_.to_device(staged_.data(), values_.view().data(), count * sizeof(T));
    verify(cudaEventRecord(copied_, device_.stream()), "cudaEventRecord");
    return values_.view().data();
  }
  const T* send(std::span<const T> host) {
    check(host.size() <= values_.size(), "upload: more than room was made for");
    std::ranges::copy(host, stage().begin());
    return send(host.size());
  }

  const T* data() const { return values_.view().data(); }  ///< on the device

 private:
  Device& device_;
  PinnedArray<T> staged_;
  Buffer<T> values_;
  cudaEvent_t copied_ = nullptr;
};

}  // namespace lamina::cuda
