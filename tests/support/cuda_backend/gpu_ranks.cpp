#include "tests/support/cuda_backend/gpu_ranks.h"

#include <cmath>
#include <random>

#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace lamina::cuda {

void run_on_gpus(int ranks, Gpus gpus, const std::function<void(Device& device, Communicator& world)>& body) {
  cuda_on_cpu::set_device_count(gpus == Gpus::one ? 1 : ranks);
  run_on_threads(ranks, [&](Communicator& world) {
    Device device(gpus == Gpus::one ? 0 : world.rank());
    body(device, world);
  });
}

std::vector<float> values_of(int rank, std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(rank) * 7919u + static_cast<unsigned>(count));
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = std::ldexp(normal(random), static_cast<int>(random() % 20));
  return values;
}

}  // namespace lamina::cuda
