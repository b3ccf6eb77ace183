// Random numbers that belong to a place, not to a process: a counter-based generator (Philox4x32-10) keyed by
// seed and purpose, counted by step and global index. Any rank can draw the number of any element.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/philox.h"

namespace lamina {

/// The stream of one purpose ("initialize/lstm0/W_h", "dropout/lstm1", "sample") of one run.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view purpose);

  /// Four 32-bit draws for (step, index).
  PhiloxBlock bits(std::uint64_t step, std::uint64_t index) const;
  /// Uniform in [0, 1) for element `index` at `step`; neighbours share one Philox block.
  float uniform(std::uint64_t step, std::uint64_t index) const;
  /// For kernels, which draw by philox().
  const PhiloxKey& key() const { return key_; }

 private:
  PhiloxKey key_;
};

}  // namespace lamina
