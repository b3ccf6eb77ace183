#include "runtime/random.h"

namespace lamina {
namespace {

// FNV-1a: a short, stable hash of the purpose; it need not be strong, Philox mixes it.
std::uint64_t hash(std::string_view text, std::uint64_t basis) {
  std::uint64_t value = basis;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

}  // namespace

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose) {
  const std::uint64_t mixed = hash(purpose, 0xcbf29ce484222325u ^ (seed * 0x9E3779B97F4A7C15u));
  key_ = {static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32)};
}

PhiloxBlock RandomStream::bits(std::uint64_t step, std::uint64_t index) const {
  return philox(key_, step, index);
}

float RandomStream::uniform(std::uint64_t step, std::uint64_t index) const {
  return to_unit_interval(bits(step, index / 4)[index % 4]);
}

}  // namespace lamina
