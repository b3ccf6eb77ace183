// SGD with momentum, Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019) over a parameter table,
// their learning-rate schedules, and clipping by global norm (Pascanu et al. 2013).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/parameter.h"

namespace lamina {

struct OptimizerSettings {
  std::string optimizer = "adam";
  double learning_rate = 2e-3;
  double momentum = 0.9;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 1.0;
  std::string schedule = "constant";
  std::int64_t warmup = 0;
  std::int64_t decay_every = 1000;
  double decay_factor = 0.5;
  double final_learning_rate = 0;

  template <class Visitor>
  void visit(Visitor& v) {
    v.choice("optimizer", optimizer, {"sgd", "adam", "adamw"}, "update rule");
    v("learning-rate", learning_rate, "learning rate after warm-up");
    v("momentum", momentum, "momentum of sgd");
    v("beta1", beta1, "decay of adam's first moment");
    v("beta2", beta2, "decay of adam's second moment");
    v("epsilon", epsilon, "added to adam's denominator");
    v("weight-decay", weight_decay, "decay of weight matrices; gains and biases are exempt");
    v("clip-norm", clip_norm, "bound on the global gradient norm (0: off)");
    v.choice("learning-rate-schedule", schedule, {"constant", "cosine", "step", "inverse-sqrt"},
             "learning rate over the steps");
    v("warmup", warmup, "steps of linear warm-up");
    v("decay-every", decay_every, "step schedule: steps between decays");
    v("decay-factor", decay_factor, "step schedule: factor of each decay");
    v("final-learning-rate", final_learning_rate, "cosine schedule: learning rate at the last step");
  }
  /// Throws UserError on values out of range.
  void validate() const;
};

/// Learning rate of update `step` (1, 2, …) of `total`.
double learning_rate_at(const OptimizerSettings& settings, std::int64_t step, std::int64_t total);

class Optimizer {
 public:
  Optimizer(const OptimizerSettings& settings, const ParameterTable& table, Backend& backend);

  /// A per-parameter state, stored like the parameters: "momentum", or "first_moment" and "second_moment".
  struct Slot {
    std::string name;
    Buffer<float> values;  ///< [table.local_size()]
  };
  std::vector<Slot>& slots() { return slots_; }

  /// One update of all parameters; gradients are multiplied by `gradient_scale` first.
  void update(std::int64_t step, double learning_rate, float gradient_scale, ParameterTable& table);

 private:
  OptimizerSettings settings_;
  Backend& backend_;
  std::vector<Slot> slots_;
};

/// L2 norm of the gradients of the whole model: squares are summed per block, blocks in the fixed tree, then
/// parameters in order; the same bits on every grid. Collective over the model axis.
double global_gradient_norm(ParameterTable& table, Backend& backend, Communicator& model_axis);

/// Factor that brings a norm down to `clip_norm` (1 when below it, or clip_norm is 0).
float clip_scale(double norm, double clip_norm);

}  // namespace lamina
