// lamina benchmark layer: how long a recurrent layer takes, and how far that is from its matrix products
// alone.
#pragma once

#include <string>

#include "launch/setting.h"
#include "runtime/communicator.h"

namespace lamina {

struct LayerBenchmarkSettings {
  std::string hidden = "512,1024";
  std::string batch = "16,64";
  int steps = 64;
  int inputs = 0;
  std::string normalization = "layer";
  std::string exchange = "sharded";
  std::string precision = "f32";
  std::string time_loop = "steps";
  int model_parallel = 0;
  int unit_blocks = 8;
  std::string device = "cpu";
  int threads = 0;
  int repetitions = 5;
  std::string json;

  template <class Visitor>
  void visit(Visitor& v) {
    v("hidden", hidden, "units of the layer: one number or several, as 512,1024");
    v("batch", batch, "lanes over all ranks: one number or several, as 16,64");
    v("steps", steps, "time steps of a sequence");
    v("inputs", inputs, "inputs of the layer (0: as many as units)");
    v.choice("normalization", normalization, {"layer", "none"}, "normalization inside the cell");
    v.choice(
        "exchange", exchange, {"sharded", "cell", "replicated"},
        "per-step exchanges between model ranks: 3, 2 or 1 with layer normalization (cell: --device cpu)");
    v.choice("precision", precision, {"f32", "tf32", "bf16"},
             "operands of the layer's products; those alone are f32 in either case");
    v.choice(
        "time-loop", time_loop, {"steps", "persistent", "auto"},
        "on a GPU: work for each time step, or one kernel for all (bf16; several model ranks: NCCL 2.28), "
        "or what fits one GPU");
    v("model-parallel", model_parallel, "ranks over which the units are split (0: all ranks)");
    v("unit-blocks", unit_blocks, "canonical shares of the units; the model axis divides it");
    v.choice("device", device, {"cpu", "cuda"}, "where to compute");
    v("threads", threads, "threads of each rank (0: the node's cores shared among its ranks)");
    v("repetitions", repetitions, "times that everything is measured, in turn");
    v("json", json, "also write the figures to this file");
  }
  /// Throws UserError on a value out of range.
  void validate() const;
};

/// Measures every combination of units and lanes, forward and backward, in turn with the same layer's matrix
/// products alone. Collective; rank 0 prints.
void benchmark_layer(const LayerBenchmarkSettings& settings, Communicator& world);

}  // namespace lamina
