// World -> data axis x model axis. Model ranks are adjacent, so that they share a node.
#pragma once

#include <memory>

#include "runtime/communicator.h"
#include "runtime/tiling.h"

namespace lamina {

/// How the ranks and the canonical tiles of a run are laid out.
struct GridSettings {
  int model_parallel = 1;
  int lane_groups = 0;  ///< 0: as many as the data axis has ranks, times the passes
  int unit_blocks = 8;
  int passes = 1;  ///< gradient accumulation: passes over the lanes of a rank in one step

  template <class Visitor>
  void visit(Visitor& v) {
    v("model-parallel", model_parallel, "ranks over which each layer's hidden units are split");
    v("lane-groups", lane_groups,
      "canonical shares of the batch; runs with equal numbers have equal bits (0: ranks of the data axis x "
      "passes)");
    v("unit-blocks", unit_blocks, "canonical shares of a layer's hidden units; the model axis divides it");
    v("passes", passes, "gradient accumulation: passes over a rank's lanes per step, to save memory");
  }
};

/// Throws UserError where `ranks`, the batch or the counts do not divide.
void require_layout(int ranks, const GridSettings& settings, int batch);

/// The grid of a run. Rank w of the world is at (w / model_parallel, w % model_parallel).
class ProcessGrid {
 public:
  /// Collective over `world`. Throws UserError as require_layout(), with the same sentence on every rank.
  ProcessGrid(Communicator& world, const GridSettings& settings, int batch);

  Communicator& world() { return world_; }
  Communicator& data() { return *data_; }
  Communicator& model() { return *model_; }
  const Tiling& tiling() const { return tiling_; }  ///< of all passes together
  int passes() const { return passes_; }
  bool is_root() const { return world_.rank() == 0; }

 private:
  Communicator& world_;
  std::unique_ptr<Communicator> data_, model_;
  Tiling tiling_;
  int passes_;
};

}  // namespace lamina
