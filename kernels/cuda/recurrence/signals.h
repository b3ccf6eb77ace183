// What thread blocks that run together tell each other through global memory (signals.cuh says how).
#pragma once

namespace lamina::cuda {

/// What a block waits for.
enum class Signal : int { none, rows, gate_numbers, cell_numbers };

/// Of the first wait that took too long; zeros while there is none. In global memory.
struct Stall {
  int is_claimed = 0;
  int block = 0, step = 0;
  Signal signal = Signal::none;
};

/// A value and its epoch, written and read in one access.
struct alignas(8) Word {
  float value;
  unsigned epoch;
};
struct alignas(16) WordPair {
  Word first, second;
};

}  // namespace lamina::cuda
