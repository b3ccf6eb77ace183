// lamina benchmark layer: how long a recurrent layer takes, and how far that is from its matrix products
// alone.
#pragma once

#include <string>

#include "launch/setting.h"
#include "model/settings.h"
#include "runtime/communicator.h"

namespace lamina {

struct LayerBenchmarkSettings : RecurrenceSettings {
  std::string hidden = "512,1024";
  std::string batch = "16,64";
  std::string steps = "64";
  int inputs = 0;
  std::string normalization = "layer";
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
    v("steps", steps, "time steps of a sequence: one number or several, as 16,64");
    v("inputs", inputs, "inputs of the layer (0: as many as units)");
    v.choice("normalization", normalization, {"layer", "none"}, "normalization inside the cell");
    RecurrenceSettings::visit(v);
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

/// Measures every combination of units, lanes and time steps, forward and backward, in turn with the same
/// layer's matrix products alone. Collective; rank 0 prints.
void benchmark_layer(const LayerBenchmarkSettings& settings, Communicator& world);

}  // namespace lamina
