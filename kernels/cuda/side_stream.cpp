#include "kernels/cuda/side_stream.h"

#include "runtime/error.h"

namespace lamina::cuda {

SideStream::SideStream(Device& device) : device_(device) {
  verify(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  for (cudaEvent_t* event : {&begin_, &end_})
    verify(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

SideStream::~SideStream() {
  for (const cudaEvent_t event : {begin_, end_})
    if (event != nullptr) report(cudaEventDestroy(event), "cudaEventDestroy");
  if (stream_ != nullptr) report(cudaStreamDestroy(stream_), "cudaStreamDestroy");
}

void SideStream::run(const std::function<void()>& work) {
  order(begin_, device_.stream(), stream_);
  const Device::OtherStream scope(device_, stream_);
  work();
}

void SideStream::join() { order(end_, stream_, device_.stream()); }

void SideStream::order(cudaEvent_t event, cudaStream_t before, cudaStream_t after) {
  verify(cudaEventRecord(event, before), "cudaEventRecord");
  verify(cudaStreamWaitEvent(after, event), "cudaStreamWaitEvent");
}

}  // namespace lamina::cuda
