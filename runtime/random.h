// Random numbers that belong to a place, not to a process: a counter-based generator (Philox4x32-10, Salmon
// et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11) keyed by seed and purpose, counted by step
// and global index. Any rank can draw the number of any element.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace lamina {

using PhiloxBlock = std::array<std::uint32_t, 4>;

/// Ten rounds of Philox4x32 on one counter.
PhiloxBlock philox(PhiloxBlock counter, std::array<std::uint32_t, 2> key);

/// The stream of one purpose ("initialize/lstm0/W_h", "dropout/lstm1", "sample") of one run.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view purpose);

  /// Four 32-bit draws for (step, index).
  PhiloxBlock bits(std::uint64_t step, std::uint64_t index) const;
  /// Uniform in [0, 1) for element `index` at `step`; neighbours share one Philox block.
  float uniform(std::uint64_t step, std::uint64_t index) const;

 private:
  std::array<std::uint32_t, 2> key_;
};

/// A 32-bit draw as a float in [0, 1), multiples of 2^-24.
inline float to_unit_interval(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1.0p-24f; }

}  // namespace lamina
