// A second stream of a Device, for work that goes on beside that of the first.
#pragma once

#include <functional>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

class SideStream {
 public:
  /// `device` outlives it.
  explicit SideStream(Device& device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  /// What `work` puts on the device begins when all that is on the device's own stream now has ended, and
  /// goes on beside what comes there later. `work` neither waits nor allocates.
  void run(const std::function<void()>& work);
  /// What comes later on the device's own stream begins when all of the above has ended.
  void join();

 private:
  static void order(cudaEvent_t event, cudaStream_t before, cudaStream_t after);

  Device& device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace lamina::cuda
