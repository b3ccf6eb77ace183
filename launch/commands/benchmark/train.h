// lamina benchmark train: how fast training is, where its time goes, and how far it is from its matrix
// products.
#pragma once

#include <string>

#include "launch/configuration.h"
#include "launch/setting.h"
#include "runtime/communicator.h"

namespace lamina {

struct TrainBenchmarkSettings {
  std::string data;
  int vocabulary = 64;
  ModelSettings model;
  OptimizerSettings optimizer;
  GridSettings grid;
  int batch = 32;
  int time_steps = 64;
  int steps = 10;
  int untimed_steps = 3;
  std::string device = "cpu";
  int threads = 0;
  std::string json;

  template <class Visitor>
  void visit(Visitor& v) {
    v("data", data, "training text, UTF-8 (empty: random characters)");
    v("vocabulary", vocabulary, "different characters of a random text");
    model.visit(v);
    optimizer.visit(v);
    grid.visit(v);
    v("batch", batch, "lanes of the whole run, over all ranks");
    v("time-steps", time_steps, "characters of each lane in one step");
    v("steps", steps, "steps that are measured, and as many whose spans are recorded");
    v("untimed-steps", untimed_steps, "steps before those");
    v.choice("device", device, {"cpu", "cuda"}, "where to compute");
    v("threads", threads, "threads of each rank (0: the node's cores shared among its ranks)");
    v("json", json, "also write the figures to this file");
  }
  /// The training that is measured.
  Configuration configuration() const;
  /// Throws UserError on a value out of range.
  void validate() const;
};

/// Trains for some steps, in turn with and without recording spans, without checkpoints. Collective; rank 0
/// prints.
void benchmark_train(const TrainBenchmarkSettings& settings, Communicator& world);

}  // namespace lamina
