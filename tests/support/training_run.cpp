#include "tests/support/training_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "kernels/backends.h"
#include "model/language_model.h"
#include "runtime/gradient_sync.h"
#include "runtime/process_grid.h"
#include "runtime/tree.h"
#include "tests/reference/language_model.h"
#include "tests/reference/layout.h"
#include "tests/reference/optimizer.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

struct Chunk {
  std::vector<std::int32_t> tokens, targets;  ///< global [T, B]
  int predictions = 0;
};

/// Lanes of a made-up text that repeats itself with some noise, so that there is something to learn. Every
/// 13th target is left out.
Chunk chunk_at(const TrainingCase& what, std::int64_t step) {
  Chunk chunk;
  const auto character = [&](std::int64_t lane, std::int64_t at) {
    const RandomStream noise(11, "text");
    const bool noisy = noise.uniform(size(lane), size(at)) < 0.1f;
    const std::int64_t value = noisy ? static_cast<std::int64_t>(noise.bits(size(lane), size(at))[1] % 97)
                                     : (at * at + 3 * lane) % 7;
    return static_cast<std::int32_t>(value % what.vocabulary);
  };
  for (std::int64_t t = 0; t < what.time_steps; ++t)
    for (std::int64_t lane = 0; lane < what.batch; ++lane) {
      const std::int64_t at = step * what.time_steps + t;
      const bool predicted = (at + lane) % 13 != 0;
      chunk.tokens.push_back(character(lane, at));
      chunk.targets.push_back(predicted ? character(lane, at + 1) : -1);
      chunk.predictions += predicted;
    }
  return chunk;
}

/// The trainer of one rank.
class Trainer {
 public:
  Trainer(const TrainingCase& what, const Placement& where, Communicator& world)
      : what_(what),
        grid_(world,
              {.model_parallel = where.model_ranks,
               .lane_groups = what.lane_groups,
               .unit_blocks = what.unit_blocks,
               .passes = where.passes},
              what.batch),
        backend_(where.make_backend ? where.make_backend(world.rank()) : make_cpu_backend(where.threads)),
        model_(what.model, what.vocabulary, what.time_steps, pass(), *backend_, grid_.model(), what.seed),
        optimizer_(what.optimizer, model_.parameters(), *backend_),
        gradient_sync_(where.passes, model_.parameters(), *backend_, grid_.data()),
        state_(*backend_, what.model.layers, what.model.hidden, grid_.tiling()) {}

  void step(std::int64_t step, TrainingTrace& trace) {
    trace.losses.push_back(forward_backward(step));
    ParameterTable& table = model_.parameters();
    const double norm = global_gradient_norm(table, *backend_, grid_.model());
    trace.gradient_norms.push_back(norm);
    optimizer_.update(step, learning_rate_at(what_.optimizer, step, what_.steps),
                      clip_scale(norm, what_.optimizer.clip_norm), table);
    model_.parameters_changed();
  }

  /// This rank's blocks, written where they belong.
  void write_parameters(Tensors& out) {
    ParameterTable& table = model_.parameters();
    for (int i = 0; i < static_cast<int>(table.all().size()); ++i) {
      const Parameter& p = table[i];
      std::vector<float> values(size(p.local_size));
      backend_->to_host(table.value(i), values);
      out[p.name].resize(size(p.size()), std::numeric_limits<float>::quiet_NaN());
      reference::from_blocks(std::span<const float>(values), p.blocked, p.blocks, out[p.name]);
    }
  }

 private:
  Tiling pass() const {
    Tiling tiling = grid_.tiling();
    tiling.groups.local /= grid_.passes();
    return tiling;
  }

  double forward_backward(std::int64_t step) {
    const Tiling& lanes = grid_.tiling();
    const int groups = pass().groups.local;
    const Chunk chunk = chunk_at(what_, step);
    std::vector<double> losses(size(lanes.groups.local));
    for (int first = 0; first < lanes.groups.local; first += groups) {
      Tiling tiling = pass();
      tiling.groups.first += first;
      const reference::SequenceLayout layout{tiling, what_.time_steps, 1};
      const auto tokens = layout.to_full<std::int32_t>(chunk.tokens);
      const auto targets = layout.to_full<std::int32_t>(chunk.targets);
      model_.forward({what_.time_steps, tokens, targets, {}}, state_, first, size(step));
      model_.backward(1 / static_cast<float>(chunk.predictions),
                      {.gradients_are_set = [this](ParameterRange range) { gradient_sync_.add(range); },
                       .side_work = {.advance = [this] { gradient_sync_.advance(); },
                                     .pause = [this] { gradient_sync_.pause(); }}});
      gradient_sync_.advance();
      model_.losses(std::span(losses).subspan(size(first), size(groups)));
    }
    EXPECT_THAT(gradient_sync_.non_finite_of_rank(), ::testing::Each(false));
    gradient_sync_.finish();

    std::vector<double> all(size(lanes.groups.count));
    grid_.data().all_gather(std::span<const double>(losses), std::span(all));
    return tree_sum(all.size(), [&](std::size_t g) { return all[g]; }) / chunk.predictions;
  }

  TrainingCase what_;
  ProcessGrid grid_;
  std::unique_ptr<Backend> backend_;
  LanguageModel model_;
  Optimizer optimizer_;
  GradientSync gradient_sync_;
  CarriedState state_;
};

TrainingTrace train_rank(const TrainingCase& what, const Placement& where, Communicator& world,
                         Tensors& parameters) {
  Trainer trainer(what, where, world);
  TrainingTrace trace;
  for (std::int64_t step = 1; step <= what.steps; ++step) trainer.step(step, trace);
  trainer.write_parameters(parameters);
  return trace;
}

// --- the reference ----------------------------------------------------------------------------------------

reference::LanguageModelShape shape_of(const TrainingCase& what) {
  const bool normalized = what.model.normalization == "layer";
  return {what.vocabulary, what.model.embedding, what.model.hidden, what.model.layers,
          normalized ? Normalization::layer : Normalization::none};
}

std::vector<reference::Vector> dropout_of(const TrainingCase& what, std::int64_t step) {
  std::vector<reference::Vector> factors;
  for (int place = 0; place <= what.model.layers && what.model.dropout > 0; ++place) {
    const RandomStream stream(what.seed, "dropout/" + std::to_string(place));
    factors.push_back(reference::dropout_factors(
        stream, size(step), what.model.dropout, what.model.dropout_kind == "variational", what.time_steps,
        what.batch, place == 0 ? what.model.embedding : what.model.hidden));
  }
  return factors;
}

/// One tensor's update rule with its state.
class ReferenceRule {
 public:
  ReferenceRule(const OptimizerSettings& settings, bool decays)
      : sgd_(settings.optimizer == "sgd"),
        sgd_rule_{.momentum = settings.momentum, .decay = decays ? settings.weight_decay : 0, .v = {}},
        adam_rule_{.beta1 = settings.beta1,
                   .beta2 = settings.beta2,
                   .epsilon = settings.epsilon,
                   .decay = decays ? settings.weight_decay : 0,
                   .decoupled = settings.optimizer == "adamw",
                   .m = {},
                   .v = {}} {}

  void update(double rate, const reference::Vector& gradient, reference::Vector& values) {
    sgd_ ? sgd_rule_.update(rate, gradient, values) : adam_rule_.update(rate, gradient, values);
  }

 private:
  bool sgd_;
  reference::Sgd sgd_rule_;
  reference::Adam adam_rule_;
};

/// Weight matrices decay; the embedding, gains and biases do not.
bool decays(const std::string& name) { return name.find("/W") != std::string::npos; }

}  // namespace

TrainingCase small_training(const std::string& normalization, const std::string& optimizer,
                            double learning_rate) {
  TrainingCase what;
  what.model.normalization = normalization;
  what.model.layers = 2;
  what.model.hidden = 16;
  what.model.embedding = 8;
  what.model.dropout = 0.2;
  what.model.dropout_kind = optimizer == "sgd" ? "variational" : "plain";
  what.optimizer = {.optimizer = optimizer,
                    .learning_rate = learning_rate,
                    .weight_decay = 1e-3,
                    .clip_norm = 0.5,
                    .schedule = "cosine",
                    .warmup = 3};
  return what;
}

TrainingTrace train_on(const TrainingCase& what, const Placement& where) {
  std::vector<TrainingTrace> traces(size(where.data_ranks * where.model_ranks));
  std::vector<Tensors> parameters(traces.size());
  run_on_threads(where.data_ranks * where.model_ranks, [&](Communicator& world) {
    const std::size_t rank = size(world.rank());
    traces[rank] = train_rank(what, where, world, parameters[rank]);
  });

  TrainingTrace& whole = traces.front();
  for (const TrainingTrace& trace : traces) {
    EXPECT_TRUE(same_bits(trace.losses, whole.losses)) << "losses of two ranks";
    EXPECT_TRUE(same_bits(trace.gradient_norms, whole.gradient_norms)) << "gradient norms of two ranks";
  }
  whole.parameters = merged(parameters);
  return whole;
}

ReferenceTrace train_reference(const TrainingCase& what) {
  TrainingCase start = what;
  start.steps = 0;
  const Tensors first = train_on(start).parameters;
  const reference::LanguageModelShape shape = shape_of(what);
  reference::LanguageModelParameters parameters = zero_parameters(shape);
  const auto tensors = parameters.tensors();
  std::vector<ReferenceRule> rules;
  for (const auto& [name, values] : tensors) {
    *values = converted<double>(first.at(name));
    rules.emplace_back(what.optimizer, decays(name));
  }

  ReferenceTrace trace;
  std::vector<reference::Vector> h, c;
  for (std::int64_t step = 1; step <= what.steps; ++step) {
    const Chunk chunk = chunk_at(what, step);
    reference::LanguageModelResult result = language_model(
        shape, parameters,
        {what.time_steps, what.batch, chunk.tokens, chunk.targets, {}, h, c, dropout_of(what, step)},
        1.0 / chunk.predictions);
    h = result.h_last;
    c = result.c_last;
    const auto gradients = result.gradients.tensors();
    const double norm = reference::global_norm(gradients);
    const double clip = reference::clip_factor(norm, what.optimizer.clip_norm);
    trace.losses.push_back(result.loss() / chunk.predictions);
    trace.gradient_norms.push_back(norm);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      for (double& value : *gradients[i].second) value *= clip;
      rules[i].update(learning_rate_at(what.optimizer, step, what.steps), *gradients[i].second,
                      *tensors[i].second);
    }
  }
  for (const auto& [name, values] : tensors) trace.parameters[name] = *values;
  return trace;
}

}  // namespace lamina::test
