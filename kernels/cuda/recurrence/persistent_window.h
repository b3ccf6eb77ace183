// What lies where in a rank's window of peer memory; offsets in bytes, the same on all ranks.
#pragma once

#include "kernels/cuda/recurrence/persistent_layout.h"
#include "kernels/cuda/recurrence/signals.h"

namespace lamina::cuda {

/// Of one pass, in either direction. A window has two of these, for even and odd passes: who clears one for a
/// pass has met all ranks at the beginning of the pass before, after their last stores of the one before
/// that.
struct PassLayout {
  std::size_t exchanged, flags, gate_words, cell_words;  ///< as in PersistentArrays
  std::size_t bytes;

  PassLayout(const PersistentGrid& grid, int hidden, bool normalized) {
    const int rows = 2 * grid.all_rows(), words = normalized ? rows * grid.members : 0;
    RoomCounter room;
    exchanged = room.take<unsigned short>(rows * 4 * hidden);
    flags = room.take<unsigned>(grid.teams * grid.members);
    gate_words = room.take<Word>(words);
    cell_words = room.take<WordPair>(words);
    bytes = (room.used() + 255) / 256 * 256;
  }
};

}  // namespace lamina::cuda
