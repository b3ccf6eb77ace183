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

void SideSumsInTurns::add(std::span<float> values) {
  if (waiting_.empty() || !grow(waiting_.back(), values)) waiting_.push_back(values);
}

void SideSumsInTurns::advance() {
  for (const std::span<float> values : waiting_) sums_.add(values);
  waiting_.clear();
}

void SideSumsInTurns::finish() {
  advance();
  pause();
}

}  // namespace lamina::cuda
