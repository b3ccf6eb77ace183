// What the tests of the emulated GPU share: buffers on the device, launches.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "cuda_runtime.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace cuda_on_cpu::test {

/// The emulated GPU as at the start of the program.
class EmulatedGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    // Deaths in a process of their own: in a fork of this one, ThreadSanitizer loses sight of fibers.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    reset();
  }
  void TearDown() override { reset(); }
};

/// With two streams that do not wait for the legacy one, and an event.
class TwoStreams : public EmulatedGpu {
 protected:
  void SetUp() override {
    EmulatedGpu::SetUp();
    for (cudaStream_t* stream : {&one_, &other_})
      ASSERT_EQ(cudaSuccess, cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    ASSERT_EQ(cudaSuccess, cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
  }
  void TearDown() override {
    for (const cudaStream_t stream : {one_, other_}) EXPECT_EQ(cudaSuccess, cudaStreamDestroy(stream));
    EXPECT_EQ(cudaSuccess, cudaEventDestroy(event_));
    EmulatedGpu::TearDown();
  }

  cudaStream_t one_ = nullptr, other_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

/// Device memory that the test's thread allocates.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t size) : size_(size) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&data_, size * sizeof(T))) << last_complaint();
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    EXPECT_EQ(cudaSuccess, cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> copied(size_);
    EXPECT_EQ(cudaSuccess, cudaMemcpy(copied.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost))
        << last_complaint();
    return copied;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

struct Shape {
  dim3 blocks = 1;
  dim3 threads = 1;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;
  bool cooperative = false;
};

/// kernel<<<shape>>>(arguments…)
template <class... Parameters, class... Arguments>
cudaError_t start(const Shape& shape, void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared;
  config.stream = shape.stream;
  config.attrs = &cooperative;
  config.numAttrs = shape.cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace cuda_on_cpu::test
