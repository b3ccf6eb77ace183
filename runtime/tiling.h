// What a rank computes, in tiles. A *lane group* is an equal share of the global batch, a *unit block* an
// equal share of a layer's hidden units. Both counts belong to the run, not to the grid: every tile (lane
// group x unit block) is computed by calls of the same shape wherever it lies, and partial sums over groups
// or blocks are merged in the tree of runtime/tree.h. So the grid cannot change a bit.
#pragma once

#include <cstdint>

namespace lamina {

/// An equal share of `count` canonical parts: the run [first, first + local). Power-of-two counts.
struct Share {
  int count = 1;  ///< parts of the whole run
  int first = 0;  ///< the first part of this rank
  int local = 1;  ///< parts of this rank

  /// The share of rank `rank` of `ranks`; `ranks` divides `count`.
  static Share of(int count, int rank, int ranks) { return {count, count / ranks * rank, count / ranks}; }
  friend bool operator==(const Share&, const Share&) = default;
};

/// The tiles of one rank.
struct Tiling {
  Share groups;  ///< lane groups, split over the data axis
  Share blocks;  ///< unit blocks, split over the model axis
  int rows = 1;  ///< lanes in one group (batch / groups.count)

  int batch() const { return groups.count * rows; }        ///< lanes of the run
  int local_lanes() const { return groups.local * rows; }  ///< lanes of this rank
  int first_lane() const { return groups.first * rows; }
};

}  // namespace lamina
