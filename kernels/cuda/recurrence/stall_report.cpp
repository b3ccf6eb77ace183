#include "kernels/cuda/recurrence/stall_report.h"

#include "kernels/cuda/recurrence/persistent_kernels.h"

namespace lamina::cuda {

StallReport::StallReport(Device& device, const PersistentGrid& grid, int rank, const char* direction)
    : device_(device),
      grid_(grid),
      rank_(rank),
      direction_(direction),
      found_(device.allocate<Stall>(1)),
      sent_(1),
      at_end_(device.end_checks(), [this] { look(); }) {
  sent_.view()[0] = {};
  verify(cudaEventCreateWithFlags(&arrived_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  if (grid.ranks > 1) in_waits_.emplace(device.wait_checks(), [this](auto) { look(); });
}

StallReport::~StallReport() { report(cudaEventDestroy(arrived_), "cudaEventDestroy"); }

void StallReport::send() {
  device_.send_to_host(found_.view().data(), sent_.data(), sizeof(Stall));
  verify(cudaEventRecord(arrived_, device_.stream()), "cudaEventRecord");
}

void StallReport::look() const {
  const cudaError_t code = cudaEventQuery(arrived_);
  if (code == cudaErrorNotReady) {
    static_cast<void>(cudaGetLastError());  // it was an answer, not an error
    return;
  }
  verify(code, "cudaEventQuery");
  check_no_stall(*sent_.data(), grid_, rank_, direction_);
}

}  // namespace lamina::cuda
