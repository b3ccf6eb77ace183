#include "runtime/optimizer.h"

#include <gtest/gtest.h>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/reference/optimizer.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using test::all_close;
using test::converted;
using test::random_values;
using test::same_bits;

// Sizes that fill SIMD vectors and that do not; "gain" is exempt from weight decay.
constexpr std::int64_t kRows = 24, kWidth = 13;

ParameterTable make_table(Backend& backend, const Share& blocks) {
  ParameterTable table;
  table.add("W", {kRows, kWidth}, {1, kRows, kWidth, 8}, blocks, Initializer::uniform(1), true);
  table.add("gain", {kRows}, {1, kRows, 1, 8}, blocks, Initializer::uniform(1), false);
  table.allocate(backend, 1);
  return table;
}

std::vector<float> host(Backend& backend, std::span<const float> device) {
  std::vector<float> values(device.size());
  backend.to_host(device, values);
  return values;
}

void set_gradients(Backend& backend, ParameterTable& table, int step) {
  for (int i = 0; i < 2; ++i) {
    const Parameter& p = table[i];
    const auto gradient = random_values(p.name + std::to_string(step), static_cast<std::size_t>(p.size()));
    backend.to_device(reference::to_blocks<float>(gradient, p.blocked, p.blocks), table.gradient(i));
  }
}

/// Five updates by the program and by the formulas, the gradients scaled by 0.5.
template <class Rule>
void expect_updates(const OptimizerSettings& settings, Rule for_W, Rule for_gain) {
  const auto backend = make_cpu_backend(1);
  ParameterTable table = make_table(*backend, Share::of(8, 0, 1));
  Optimizer optimizer(settings, table, *backend);
  auto W = converted<double>(host(*backend, table.value(0)));
  auto gain = converted<double>(host(*backend, table.value(1)));

  for (int step = 1; step <= 5; ++step) {
    const double rate = 0.1 / step;
    set_gradients(*backend, table, step);
    auto dW = converted<double>(host(*backend, table.gradient(0)));
    auto dgain = converted<double>(host(*backend, table.gradient(1)));
    for (double& value : dW) value *= 0.5;
    for (double& value : dgain) value *= 0.5;

    optimizer.update(step, rate, 0.5f, table);
    for_W.update(rate, dW, W);
    for_gain.update(rate, dgain, gain);
  }

  EXPECT_TRUE(all_close(host(*backend, table.value(0)), W, 2e-6)) << "W";
  EXPECT_TRUE(all_close(host(*backend, table.value(1)), gain, 2e-6)) << "gain";
}

TEST(Optimizer, SgdWithMomentum) {
  const OptimizerSettings settings{.optimizer = "sgd", .momentum = 0.8, .weight_decay = 0.05};
  expect_updates(settings, reference::Sgd{.momentum = 0.8, .decay = 0.05, .v = {}},
                 reference::Sgd{.momentum = 0.8, .decay = 0, .v = {}});
}

TEST(Optimizer, PlainGradientDescent) {
  expect_updates({.optimizer = "sgd", .momentum = 0}, reference::Sgd{}, reference::Sgd{});
}

reference::Adam adam(double decay, bool decoupled) {
  return {
      .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .decay = decay, .decoupled = decoupled, .m = {}, .v = {}};
}

TEST(Optimizer, Adam) {
  const OptimizerSettings settings{
      .optimizer = "adam", .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.05};
  expect_updates(settings, adam(0.05, false), adam(0, false));
}

TEST(Optimizer, AdamWDecouplesTheDecay) {
  const OptimizerSettings settings{
      .optimizer = "adamw", .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6, .weight_decay = 0.05};
  expect_updates(settings, adam(0.05, true), adam(0, true));
}

// The first step of Adam moves every value by the learning rate, against the sign of its gradient.
TEST(Optimizer, FirstStepOfAdamIsTheLearningRate) {
  const auto backend = make_cpu_backend(1);
  ParameterTable table = make_table(*backend, Share::of(8, 0, 1));
  Optimizer optimizer({.optimizer = "adam"}, table, *backend);
  const auto before = host(*backend, table.value(0));
  set_gradients(*backend, table, 1);
  const auto gradient = host(*backend, table.gradient(0));

  optimizer.update(1, 0.01, 1, table);

  const auto after = host(*backend, table.value(0));
  for (std::size_t i = 0; i < before.size(); ++i)
    EXPECT_NEAR(after[i] - before[i], gradient[i] > 0 ? -0.01 : 0.01, 1e-6) << i;
}

TEST(Optimizer, SlotsAreNamedAndShapedLikeTheParameters) {
  const auto backend = make_cpu_backend(1);
  ParameterTable table = make_table(*backend, Share::of(8, 1, 2));
  Optimizer sgd({.optimizer = "sgd"}, table, *backend), with_moments({.optimizer = "adamw"}, table, *backend);

  ASSERT_EQ(sgd.slots().size(), 1u);
  EXPECT_EQ(sgd.slots()[0].name, "momentum");
  ASSERT_EQ(with_moments.slots().size(), 2u);
  EXPECT_EQ(with_moments.slots()[0].name, "first_moment");
  EXPECT_EQ(with_moments.slots()[1].name, "second_moment");
  for (const auto& slot : with_moments.slots())
    EXPECT_EQ(slot.values.size(), static_cast<std::size_t>(table.local_size()));
}

// --- schedules --------------------------------------------------------------------------------------------

std::vector<double> rates(const OptimizerSettings& settings, std::int64_t total) {
  std::vector<double> all;
  for (std::int64_t step = 1; step <= total; ++step) all.push_back(learning_rate_at(settings, step, total));
  return all;
}

TEST(Schedule, ConstantAfterAWarmup) {
  const OptimizerSettings settings{.learning_rate = 0.8, .schedule = "constant", .warmup = 4};
  EXPECT_TRUE(all_close(rates(settings, 6), std::vector{0.2, 0.4, 0.6, 0.8, 0.8, 0.8}, 1e-15));
}

TEST(Schedule, Cosine) {
  const OptimizerSettings settings{
      .learning_rate = 1, .schedule = "cosine", .warmup = 2, .final_learning_rate = 0.1};
  std::vector<double> expected;
  for (int step = 1; step <= 10; ++step) expected.push_back(reference::cosine_rate(1, 0.1, step, 2, 10));

  EXPECT_TRUE(all_close(rates(settings, 10), expected, 1e-15));
  EXPECT_DOUBLE_EQ(learning_rate_at(settings, 10, 10), 0.1);
}

TEST(Schedule, StepsDown) {
  const OptimizerSettings settings{
      .learning_rate = 1, .schedule = "step", .decay_every = 2, .decay_factor = 0.5};
  EXPECT_TRUE(all_close(rates(settings, 6), std::vector{1.0, 1.0, 0.5, 0.5, 0.25, 0.25}, 1e-15));
}

TEST(Schedule, InverseSquareRoot) {
  const OptimizerSettings settings{.learning_rate = 1, .schedule = "inverse-sqrt", .warmup = 4};
  const auto all = rates(settings, 16);
  EXPECT_DOUBLE_EQ(all[1], 0.5);
  EXPECT_DOUBLE_EQ(all[3], 1);
  EXPECT_DOUBLE_EQ(all[15], 0.5);
}

// --- clipping ---------------------------------------------------------------------------------------------

TEST(Clipping, ScaleBringsTheNormToTheBound) {
  EXPECT_FLOAT_EQ(clip_scale(4, 1), 0.25f);
  EXPECT_EQ(clip_scale(0.5, 1), 1);
  EXPECT_EQ(clip_scale(1e9, 0), 1) << "0 is off";
}

TEST(Clipping, NormIsOfAllParametersTogether) {
  const auto backend = make_cpu_backend(1);
  const auto self = make_self_communicator();
  ParameterTable table = make_table(*backend, Share::of(8, 0, 1));
  set_gradients(*backend, table, 1);
  auto dW = converted<double>(host(*backend, table.gradient(0)));
  auto dgain = converted<double>(host(*backend, table.gradient(1)));

  const double norm = global_gradient_norm(table, *backend, *self);

  EXPECT_NEAR(norm / reference::global_norm({{"W", &dW}, {"gain", &dgain}}), 1, 1e-12);
}

TEST(Clipping, NormHasTheSameBitsOnEveryModelAxis) {
  std::vector<double> norms;
  for (const int ranks : {1, 2, 4, 8}) {
    std::vector<double> of_rank(static_cast<std::size_t>(ranks));
    run_on_threads(ranks, [&](Communicator& model_axis) {
      const auto backend = make_cpu_backend(1);
      ParameterTable table = make_table(*backend, Share::of(8, model_axis.rank(), ranks));
      set_gradients(*backend, table, 1);
      of_rank[static_cast<std::size_t>(model_axis.rank())] =
          global_gradient_norm(table, *backend, model_axis);
    });
    norms.insert(norms.end(), of_rank.begin(), of_rank.end());
  }

  EXPECT_TRUE(same_bits(norms, std::vector(norms.size(), norms[0])));
}

// --- settings ---------------------------------------------------------------------------------------------

TEST(OptimizerSettings, RangesAreChecked) {
  EXPECT_NO_THROW(OptimizerSettings{}.validate());
  EXPECT_THROW(OptimizerSettings{.learning_rate = 0}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.learning_rate = NAN}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.momentum = 1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.beta1 = -0.1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.beta2 = 1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.epsilon = 0}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.weight_decay = -1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.clip_norm = -1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.warmup = -1}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.decay_every = 0}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.decay_factor = 0}.validate(), UserError);
  EXPECT_THROW(OptimizerSettings{.final_learning_rate = -1}.validate(), UserError);
}

TEST(OptimizerSettings, ErrorsNameTheFlagTheValueAndTheRange) {
  try {
    OptimizerSettings{.momentum = 1.5}.validate();
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "--momentum 1.5 is out of range: give a number from 0 to below 1");
  }
}

}  // namespace
}  // namespace lamina
