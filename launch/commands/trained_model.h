// Where a trained model comes from and where it runs: settings that several commands share.
#pragma once

#include <string>

#include "launch/checkpointing.h"
#include "launch/setting.h"

namespace lamina {

struct TrainedModelSettings {
  std::string checkpoint;
  int model_parallel = 1;
  std::string device = "cpu";
  int threads = 0;

  template <class Visitor>
  void visit(Visitor& v) {
    v("checkpoint", checkpoint, "checkpoint file, or a folder of them (its newest)");
    v("model-parallel", model_parallel, "ranks over which each layer's hidden units are split");
    v.choice("device", device, {"cpu", "cuda"}, "where to compute");
    v("threads", threads, "threads of each rank (0: the node's cores shared among its ranks)");
  }

  void validate() const {
    require(!checkpoint.empty(), "--checkpoint is missing: give a checkpoint file, or a folder of them");
    at_least("model-parallel", model_parallel, 1);
    at_least("threads", threads, 0);
  }
  /// For lanes of `batch`, `time_steps` at a time.
  LoadSettings load(int batch, int time_steps) const {
    return {model_parallel, batch, time_steps, device, threads};
  }
};

}  // namespace lamina
