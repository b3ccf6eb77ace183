#include "kernels/cuda/side_sums.h"

#include "runtime/error.h"

namespace lamina::cuda {

SideSums::SideSums(Device& device, Exchange& exchange, std::size_t most)
    : sums_(device, exchange), side_(device) {
  check(exchange.is_capturable(), "an exchange that waits cannot go on beside other work");
  sums_.reserve(most);
}

void SideSums::add(std::span<float> values) {
  side_.run([&] { sums_.sum(values); });
}

}  // namespace lamina::cuda
