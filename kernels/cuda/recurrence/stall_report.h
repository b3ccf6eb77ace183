// Whether a persistent kernel gave up waiting, without a wait of the host for each pass: the record follows
// the kernel on the stream, and is looked at whenever the host waits for the device, before it uses anything
// that it waited for. One per direction, as a copy that is on its way hides the one before it.
#pragma once

#include <cuda_runtime.h>

#include <optional>

#include "kernels/cuda/device.h"
#include "kernels/cuda/recurrence/persistent_plan.h"
#include "kernels/cuda/recurrence/signals.h"

namespace lamina::cuda {

class StallReport {
 public:
  /// Of kernels of model rank `rank` in one direction: "forward". `device` outlives it.
  StallReport(Device& device, const PersistentGrid& grid, int rank, const char* direction);
  ~StallReport();
  StallReport(const StallReport&) = delete;
  StallReport& operator=(const StallReport&) = delete;

  /// For the kernel: of the first wait that took too long, in whichever pass. It is never cleared, so later
  /// passes end soon, and every later wait for the device throws.
  Stall* on_device() { return found_.view().data(); }
  /// Puts the copy to the host on the stream, after a kernel.
  void send();

 private:
  /// Throws InternalError that names the block, its step and what it waited for, where there is one in what
  /// has arrived.
  void look() const;

  Device& device_;
  PersistentGrid grid_;
  int rank_;
  const char* direction_;
  Buffer<Stall> found_;      ///< [1]
  PinnedArray<Stall> sent_;  ///< [1]
  cudaEvent_t arrived_ = nullptr;
  EndChecks::Entry at_end_;
  /// With peers what comes later on the stream may wait for one that is gone: the record is there before.
  std::optional<WaitChecks::Entry> in_waits_;
};

}  // namespace lamina::cuda
