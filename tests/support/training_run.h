// A few steps of training on thread ranks with the program's own pieces, as launch/training.cpp puts them
// together, leaving out files. And the same steps by the reference.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/settings.h"
#include "runtime/backend.h"
#include "runtime/optimizer.h"
#include "tests/support/layer_cases.h"

namespace lamina::test {

struct TrainingCase {
  ModelSettings model;
  OptimizerSettings optimizer;
  int vocabulary = 11;
  int batch = 16;
  int time_steps = 6;
  int lane_groups = 8;
  int unit_blocks = 8;
  std::int64_t steps = 20;
  std::uint64_t seed = 3;
};

/// Of two layers, with dropout, decay, clipping, warm-up and a schedule.
TrainingCase small_training(const std::string& normalization, const std::string& optimizer,
                            double learning_rate);

struct Placement {
  int data_ranks = 1;
  int model_ranks = 1;
  int passes = 1;
  int threads = 1;
  /// Of a rank. Empty: the CPU backend, on `threads`.
  std::function<std::unique_ptr<Backend>(int rank)> make_backend = {};
};

struct TrainingTrace {
  std::vector<double> losses;          ///< per step, mean nats per prediction
  std::vector<double> gradient_norms;  ///< per step, before clipping
  Tensors parameters;                  ///< by name, global; after the last step
};

/// Adds a test failure where copies of a parameter differ between ranks.
TrainingTrace train_on(const TrainingCase& what, const Placement& where = {});

struct ReferenceTrace {
  std::vector<double> losses, gradient_norms;
  ReferenceTensors parameters;
};

/// The same steps in double precision, from the same first parameters, tokens and dropout masks.
ReferenceTrace train_reference(const TrainingCase& what);

}  // namespace lamina::test
