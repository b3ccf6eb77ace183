// What a person can choose about a model. Names and help of the flags live here, beside the fields.
#pragma once

#include <string>

namespace lamina {

/// How recurrent layers are computed: it changes bits at most, not what is computed.
struct RecurrenceSettings {
  std::string exchange = "sharded";
  std::string precision = "f32";
  std::string time_loop = "steps";

  template <class Visitor>
  void visit(Visitor& v) {
    v.choice(
        "exchange", exchange, {"sharded", "cell", "replicated"},
        "per-step exchanges between model ranks: 3, 2 or 1 with layer normalization (cell: --device cpu)");
    v.choice("precision", precision, {"f32", "tf32", "bf16"},
             "operands of the recurrent layers' products; the rest is f32 (tf32: --device cuda)");
    v.choice(
        "time-loop", time_loop, {"steps", "persistent", "auto"},
        "on a GPU: work for each time step, or one kernel for all (bf16; several model ranks: NCCL 2.28), "
        "or what fits one GPU");
  }
};

struct ModelSettings : RecurrenceSettings {
  std::string cell = "lstm";
  std::string normalization = "layer";
  int layers = 1;
  std::string layer_order = "sequential";
  int hidden = 512;
  int embedding = 128;
  double dropout = 0;
  std::string dropout_kind = "variational";

  template <class Visitor>
  void visit(Visitor& v) {
    v.choice("cell", cell, {"lstm"}, "recurrent cell");
    v.choice("normalization", normalization, {"layer", "none"}, "normalization inside the cell");
    v("layers", layers, "recurrent layers");
    v.choice("layer-order", layer_order, {"sequential", "wavefront"},
             "how they follow each other: one after another, or beside each other, a time step apart, with "
             "common messages between model ranks (--device cpu)");
    v("hidden", hidden, "units of each recurrent layer");
    v("embedding", embedding, "width of the character embedding");
    v("dropout", dropout, "probability of dropping an activation between layers, 0 to below 1");
    v.choice("dropout-kind", dropout_kind, {"variational", "plain"},
             "one mask per lane for all time steps, or one per element");
    RecurrenceSettings::visit(v);
  }
};

}  // namespace lamina
