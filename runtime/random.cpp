#include "runtime/random.h"

namespace lamina {
namespace {

std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }

// FNV-1a: a short, stable hash of the purpose; it need not be strong, Philox mixes it.
std::uint64_t hash(std::string_view text, std::uint64_t basis) {
  std::uint64_t value = basis;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return value;
}

}  // namespace

PhiloxBlock philox(PhiloxBlock c, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {high(p1) ^ c[1] ^ key[0], low(p1), high(p0) ^ c[3] ^ key[1], low(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose) {
  const std::uint64_t mixed = hash(purpose, 0xcbf29ce484222325u ^ (seed * 0x9E3779B97F4A7C15u));
  key_ = {low(mixed), high(mixed)};
}

PhiloxBlock RandomStream::bits(std::uint64_t step, std::uint64_t index) const {
  return philox({low(index), high(index), low(step), high(step)}, key_);
}

float RandomStream::uniform(std::uint64_t step, std::uint64_t index) const {
  return to_unit_interval(bits(step, index / 4)[index % 4]);
}

}  // namespace lamina
