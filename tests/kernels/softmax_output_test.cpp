#include "kernels/cpu/softmax_output.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/error.h"
#include "tests/reference/finite_difference.h"
#include "tests/reference/language_model.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using reference::SequenceLayout;
using test::all_close;
using test::converted;
using test::random_values;
using test::same_bits;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

struct Case {
  int time_steps = 5, groups = 4, rows = 3, classes = 63, inputs = 24, blocks = 8;
  float scale = 0.125f;

  BlockedShape weights() const { return {1, classes, inputs, blocks}; }
  BlockedShape bias() const { return {1, classes, 1, blocks}; }
  std::size_t predictions() const { return size(time_steps * groups * rows); }
  Tiling tiling(Share of_groups, Share of_blocks) const { return {of_groups, of_blocks, rows}; }
};

/// In global layouts; N = T*B.
struct Input {
  std::vector<float> x, W, bias;  ///< [N, H], [V, H], [V]
  std::vector<int> targets;       ///< [N]
};
struct Result {
  std::vector<double> losses;               ///< per lane group
  std::vector<float> logits;                ///< [N, V]
  std::vector<float> d_input, d_W, d_bias;  ///< as in Input

  explicit Result(const Case& given)
      : losses(size(given.groups)),
        logits(given.predictions() * size(given.classes)),
        d_input(given.predictions() * size(given.inputs)),
        d_W(size(given.classes * given.inputs)),
        d_bias(size(given.classes)) {}
};

Input random_input(const Case& given) {
  return {random_values("x", given.predictions() * size(given.inputs)),
          random_values("W", size(given.classes * given.inputs)), random_values("bias", size(given.classes)),
          test::random_integers("targets", given.predictions(), -1, given.classes - 1)};
}

std::vector<float> all_logits(SoftmaxOutput& layer, const SequenceLayout& layout) {
  const std::size_t lanes = size(layout.tiling.local_lanes()), rows = size(layout.tiling.rows);
  const std::size_t steps = size(layout.time_steps), classes = size(layout.width);
  std::vector<float> all(lanes * steps * classes), of_step(lanes * classes);
  for (std::size_t t = 0; t < steps; ++t) {
    layer.logits(static_cast<int>(t), of_step);
    for (std::size_t lane = 0; lane < lanes; ++lane)
      std::copy_n(&of_step[lane * classes], classes,
                  &all[((lane / rows * steps + t) * rows + lane % rows) * classes]);
  }
  return all;
}

void run_rank(const Case& given, const Input& in, const Tiling& tiling, Communicator& model_axis, int threads,
              Result& result) {
  const SequenceLayout layout{tiling, given.time_steps, given.inputs}, targets{tiling, given.time_steps, 1};
  const SequenceLayout logit_layout{tiling, given.time_steps, given.classes};
  const auto x = layout.to_full<float>(in.x);
  const auto W = reference::to_blocks<float>(in.W, given.weights(), tiling.blocks);
  const auto bias = reference::to_blocks<float>(in.bias, given.bias(), tiling.blocks);
  std::vector<double> losses(size(tiling.groups.local));
  std::vector<float> d_input(layout.blocked_size(), 99), d_W(W.size(), 99), d_bias(bias.size(), 99);

  const auto layer = make_cpu_softmax_output({.inputs = given.inputs,
                                              .classes = given.classes,
                                              .max_time_steps = given.time_steps,
                                              .tiling = tiling},
                                             model_axis, threads);
  layer->set_parameters(W, bias);
  layer->forward(given.time_steps, x, targets.to_full<std::int32_t>(in.targets));
  layer->backward(given.scale, d_input, d_W, d_bias);
  layer->losses(losses);
  const auto logits = all_logits(*layer, logit_layout);

  layout.from_blocked(std::span<const float>(d_input), result.d_input);
  reference::from_blocks(std::span<const float>(d_W), given.weights(), tiling.blocks, result.d_W);
  reference::from_blocks(std::span<const float>(d_bias), given.bias(), tiling.blocks, result.d_bias);
  if (model_axis.rank() != model_axis.size() - 1) return;
  std::ranges::copy(losses, result.losses.begin() + tiling.groups.first);
  logit_layout.from_full(std::span<const float>(logits), result.logits);
}

Result run_on_grid(const Case& given, const Input& in, int model_ranks = 1, int threads = 1) {
  Result result(given);
  run_on_threads(model_ranks, [&](Communicator& world) {
    const Share blocks = Share::of(given.blocks, world.rank(), world.size());
    run_rank(given, in, given.tiling(Share::of(given.groups, 0, 1), blocks), world, threads, result);
  });
  return result;
}

reference::SoftmaxInput in_doubles(const Case& given, const Input& in) {
  return {given.classes, converted<double>(in.x), converted<double>(in.W), converted<double>(in.bias),
          in.targets};
}

std::vector<double> losses_of_groups(const Case& given, const reference::SoftmaxResult& expected) {
  std::vector<double> losses(size(given.groups));
  for (std::size_t n = 0; n < expected.losses.size(); ++n)
    losses[n % size(given.groups * given.rows) / size(given.rows)] += expected.losses[n];
  return losses;
}

const std::vector<Case> kCases = {
    {},
    {.time_steps = 1, .groups = 1, .rows = 1, .classes = 5, .inputs = 8},  // more blocks than classes
    {.time_steps = 1, .groups = 2, .rows = 3, .classes = 1, .inputs = 8},
    {.time_steps = 5, .groups = 2, .rows = 1, .classes = 64, .inputs = 8},
    {.time_steps = 30, .groups = 2, .rows = 3, .classes = 200, .inputs = 24},  // more than a chunk of rows
    {.time_steps = 2, .groups = 1, .rows = 2, .classes = 1000, .inputs = 6, .blocks = 2},
};

TEST(SoftmaxOutput, FollowsTheReference) {
  for (const Case& given : kCases) {
    SCOPED_TRACE(given.classes);
    const Input in = random_input(given);
    const auto expected =
        reference::softmax_cross_entropy(in_doubles(given, in), static_cast<double>(given.scale));

    const Result result = run_on_grid(given, in);

    EXPECT_TRUE(all_close(result.logits, expected.logits, 1e-5));
    EXPECT_TRUE(all_close(result.losses, losses_of_groups(given, expected), 1e-6, 10));
    EXPECT_TRUE(all_close(result.d_input, expected.d_x, 1e-5, 1));
    EXPECT_TRUE(all_close(result.d_W, expected.d_W, 1e-5, 1));
    EXPECT_TRUE(all_close(result.d_bias, expected.d_bias, 1e-5, 1));
  }
}

TEST(SoftmaxOutput, GradientsAreThoseOfTheLoss) {
  const Case given{.time_steps = 2, .groups = 2, .rows = 1, .classes = 5, .inputs = 8, .scale = 1};
  const Input in = random_input(given);
  reference::SoftmaxInput doubles = in_doubles(given, in);
  const auto loss = [&] {
    const auto losses = reference::softmax_cross_entropy(doubles, 1).losses;
    double sum = 0;
    for (const double value : losses) sum += value;
    return sum;
  };

  const Result result = run_on_grid(given, in);

  EXPECT_TRUE(all_close(result.d_input, reference::finite_differences(doubles.x, loss), 1e-5, 1));
  EXPECT_TRUE(all_close(result.d_W, reference::finite_differences(doubles.W, loss), 1e-5, 1));
  EXPECT_TRUE(all_close(result.d_bias, reference::finite_differences(doubles.bias, loss), 1e-5, 1));
}

void expect_same_bits(const Result& actual, const Result& expected) {
  EXPECT_TRUE(same_bits(actual.losses, expected.losses));
  EXPECT_TRUE(same_bits(actual.logits, expected.logits));
  EXPECT_TRUE(same_bits(actual.d_input, expected.d_input));
  EXPECT_TRUE(same_bits(actual.d_W, expected.d_W));
  EXPECT_TRUE(same_bits(actual.d_bias, expected.d_bias));
}

TEST(SoftmaxOutput, HasTheSameBitsOnEveryGridAndNumberOfThreads) {
  for (const Case& given : kCases) {
    const Input in = random_input(given);
    const Result one = run_on_grid(given, in);

    for (const auto& [ranks, threads] : {std::pair(2, 1), {4, 1}, {8, 1}, {1, 2}, {1, 4}, {2, 2}}) {
      if (given.blocks % ranks != 0) continue;
      SCOPED_TRACE(std::to_string(given.classes) + " classes, " + std::to_string(ranks) + " ranks, " +
                   std::to_string(threads) + " threads");
      expect_same_bits(run_on_grid(given, in, ranks, threads), one);
    }
  }
}

// Lane groups on two data ranks: everything of a group is the same, and the parameters' gradients merge.
TEST(SoftmaxOutput, MergesLaneGroupsInTheTree) {
  const Case given;
  const Input in = random_input(given);
  const auto self = make_self_communicator();
  Result parts(given), right(given);
  run_rank(given, in, given.tiling({4, 0, 2}, Share::of(given.blocks, 0, 1)), *self, 1, parts);
  run_rank(given, in, given.tiling({4, 2, 2}, Share::of(given.blocks, 0, 1)), *self, 1, right);

  for (std::size_t i = 0; i < right.d_input.size(); ++i) parts.d_input[i] += right.d_input[i];
  for (std::size_t i = 0; i < right.logits.size(); ++i) parts.logits[i] += right.logits[i];
  for (std::size_t i = 0; i < right.losses.size(); ++i) parts.losses[i] += right.losses[i];
  for (std::size_t i = 0; i < right.d_W.size(); ++i) parts.d_W[i] += right.d_W[i];
  for (std::size_t i = 0; i < right.d_bias.size(); ++i) parts.d_bias[i] += right.d_bias[i];

  expect_same_bits(parts, run_on_grid(given, in));
}

TEST(SoftmaxOutput, IsSafeWithHugeLogits) {
  const Case given{.time_steps = 1, .groups = 1, .rows = 2, .classes = 5, .inputs = 8, .scale = 1};
  Input in{std::vector<float>(16, 0.0f), std::vector<float>(40, 0.0f), {1e4f, -1e4f, 0, 0, -1e4f}, {0, 1}};

  const Result result = run_on_grid(given, in);

  EXPECT_EQ(result.losses[0], 2e4);  // 0 for the first lane
  EXPECT_EQ(result.d_bias, (std::vector<float>{1, -1, 0, 0, 0}));
}

TEST(SoftmaxOutput, ShowsALogitThatIsNotANumber) {
  const Case given{.time_steps = 1, .groups = 1, .rows = 1, .classes = 63, .inputs = 8};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Input in = random_input(given);
    in.targets = {3};
    in.bias[40] = bad;

    EXPECT_FALSE(std::isfinite(run_on_grid(given, in).losses[0]));
  }
}

TEST(SoftmaxOutput, WithoutPredictionsHasNoLossAndNoGradient) {
  const Case given{.classes = 5};
  Input in = random_input(given);
  std::ranges::fill(in.targets, -1);

  const Result result = run_on_grid(given, in);

  EXPECT_EQ(result.losses, std::vector<double>(4, 0.0));
  EXPECT_EQ(result.d_input, std::vector<float>(result.d_input.size(), 0.0f));
  EXPECT_EQ(result.d_W, std::vector<float>(result.d_W.size(), 0.0f));
}

// The last chunk of a text has fewer time steps.
TEST(SoftmaxOutput, TakesFewerTimeStepsAfterMore) {
  const Case longer{.time_steps = 9}, shorter{.time_steps = 2};
  const Input before = random_input(longer), in = random_input(shorter);
  const Tiling tiling = shorter.tiling(Share::of(4, 0, 1), Share::of(8, 0, 1));
  const auto self = make_self_communicator();
  const auto layer =
      make_cpu_softmax_output({.inputs = 24, .classes = 63, .max_time_steps = 9, .tiling = tiling}, *self, 1);
  layer->set_parameters(in.W, in.bias);
  std::vector<double> losses(4);
  const auto forward = [&](const Case& given, const Input& input) {
    layer->forward(given.time_steps, SequenceLayout{tiling, given.time_steps, 24}.to_full<float>(input.x),
                   SequenceLayout{tiling, given.time_steps, 1}.to_full<std::int32_t>(input.targets));
    layer->losses(losses);
  };

  forward(longer, before);
  forward(shorter, in);

  EXPECT_TRUE(same_bits(losses, run_on_grid(shorter, in).losses));
}

TEST(SoftmaxOutput, RefusesTargetsThatAreNoClass) {
  const Case given;
  for (const int target : {-2, given.classes}) {
    Input in = random_input(given);
    in.targets[20] = target;

    EXPECT_THROW(run_on_grid(given, in), InternalError);
  }
}

}  // namespace
}  // namespace lamina
