#include "tests/support/cuda_backend/gpu_ranks.h"

#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace lamina::cuda {

void run_on_gpus(int ranks, Gpus gpus, const std::function<void(Device& device, Communicator& world)>& body) {
  cuda_on_cpu::set_device_count(gpus == Gpus::one ? 1 : ranks);
  run_on_threads(ranks, [&](Communicator& world) {
    Device device(gpus == Gpus::one ? 0 : world.rank());
    body(device, world);
  });
}

}  // namespace lamina::cuda
