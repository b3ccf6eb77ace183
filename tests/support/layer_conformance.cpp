#include "tests/support/layer_conformance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

std::function<std::unique_ptr<LayerCase>(const LayerSizes&)> lstm(const LstmChoices& choices) {
  return [choices](const LayerSizes& sizes) { return make_lstm_case(sizes, choices); };
}

RunChoices on_ranks(RunChoices choices, int model_ranks) {
  choices.model_ranks = model_ranks;
  return choices;
}

RunChoices in_passes(RunChoices choices, int passes) {
  choices.passes = passes;
  return choices;
}

RunChoices used(RunChoices choices) {
  choices.used = true;
  return choices;
}

const std::vector<LayerSizes>& sizes_of(const RunChoices& choices) {
  return choices.sizes.empty() ? layer_sizes() : choices.sizes;
}

constexpr double kTie = 1.0 / 256;  // of itself: what lies between a bf16 and the next

// Float rounding is 6e-8; sums here have up to a few hundred terms, and layer normalization magnifies by the
// inverse of the deviation. The worst seen was 4e-6 of a tensor's largest value; a wrong term is far outside
// the tolerance of 2e-5.
void matches_the_reference(const LayerKind& kind, const RunChoices& choices) {
  for_each_size(kind, sizes_of(choices), [&](const LayerCase& layer, const Tensors& in) {
    const Tensors actual = run(layer, in, choices);

    for (const auto& [name, expected] : layer.reference(in)) {
      const double scale = std::max(scale_of(expected), 1e-3);
      const double tolerance = choices.may_cross_ties ? kTie : layer.tolerance();
      EXPECT_TRUE(all_close(actual.at(name), expected, tolerance, scale)) << name;
      // One such value is in all sums of its row.
      if (choices.may_cross_ties && layer.tolerance() < kTie) {
        EXPECT_TRUE(most_close(actual.at(name), expected, layer.tolerance(), scale, 0.1)) << name;
      }
    }
  });
}

void has_the_same_bits_on_every_model_axis(const LayerKind& kind, const RunChoices& choices) {
  for_each_size(kind, sizes_of(choices), [&](const LayerCase& layer, const Tensors& in) {
    const Tensors whole = run(layer, in, choices);

    for (const int ranks : {2, 4, 8}) {
      SCOPED_TRACE(std::to_string(ranks) + " model ranks");
      expect_same_bits(whole, run(layer, in, on_ranks(choices, ranks)));
    }
  });
}

void has_the_same_bits_in_passes_over_the_lane_groups(const LayerKind& kind, const RunChoices& choices) {
  for_each_size(kind, sizes_of(choices), [&](const LayerCase& layer, const Tensors& in) {
    const Tensors at_once = run(layer, in, choices);

    expect_same_bits(at_once, run(layer, in, in_passes(choices, 2)));
    expect_same_bits(at_once, run(layer, in, in_passes(on_ranks(choices, 2), 4)));
  });
}

void keeps_nothing_of_an_earlier_run(const LayerKind& kind, const RunChoices& choices) {
  for_each_size(kind, sizes_of(choices), [&](const LayerCase& layer, const Tensors& in) {
    const Tensors fresh = run(layer, in, choices);

    expect_same_bits(fresh, run(layer, in, used(choices)));
    expect_same_bits(fresh, run(layer, in, used(on_ranks(choices, 4))));
  });
}

/// The loss whose gradients the layer gives, from its own forward pass.
double loss_of(const LayerCase& layer, const Tensors& in, const RunChoices& choices) {
  const Tensors out = run(layer, in, choices);
  double loss = 0;
  if (out.contains("losses")) {
    for (const float value : out.at("losses")) loss += kSoftmaxLossScale * static_cast<double>(value);
    return loss;
  }
  const std::vector<float>& output = out.at("output");
  const std::vector<float>& weights = in.at("d_output");
  for (std::size_t i = 0; i < output.size(); ++i)
    loss += static_cast<double>(output[i]) * static_cast<double>(weights[i]);
  return loss;
}

/// d loss / d s of moving the tensor `name` by s * direction, by central differences of fourth order.
double difference(const LayerCase& layer, const Tensors& in, const std::string& name,
                  const std::vector<double>& direction, double step, const RunChoices& choices) {
  const auto at = [&](double offset) {
    Tensors moved = in;
    for (std::size_t i = 0; i < direction.size(); ++i)
      moved[name][i] = static_cast<float>(static_cast<double>(in.at(name)[i]) + offset * direction[i]);
    return loss_of(layer, moved, choices);
  };
  return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
}

// Along the gradient itself, normalized, the derivative is the gradient's length: a missing, doubled or
// misplaced part shows. The step is large because the losses are sums of floats (noise of 1e-6 / step).
void has_gradients_that_match_differences_of_its_own_loss(const LayerKind& kind, const RunChoices& choices) {
  const auto layer = kind.make(sizes_of(choices).front());
  const Tensors in = layer->inputs();
  const Tensors out = run(*layer, in, choices);

  for (const auto& [name, values] : in) {
    if (!out.contains("d_" + name)) continue;
    std::vector<double> direction(out.at("d_" + name).begin(), out.at("d_" + name).end());
    double length = 0;
    for (const double value : direction) length += value * value;
    length = std::sqrt(length);
    for (double& value : direction) value /= length;
    EXPECT_NEAR(difference(*layer, in, name, direction, 0.02, choices) / length, 1, 1e-3) << name;
  }
}

/// Makes every number of a matrix [4H, …] a multiple of 2^-10.
void make_exact(std::vector<float>& matrix) {
  for (float& weight : matrix) weight = std::round(weight * 0x1p10f) / 0x1p10f;
}
/// Adds to every row of it the same multiples of 1/4.
void add_row(std::vector<float>& matrix, int rows) {
  const std::size_t width = matrix.size() / static_cast<std::size_t>(rows);
  const std::vector<std::int32_t> row = random_integers("row", width, -64, 64);
  for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] += static_cast<float>(row[i % width]) / 4;
}

// LN takes out what all gates have in common, and so does who rounds its weights, before that. Of numbers
// whose sums and means are exact not one bit may differ, of gradients either; were the weights rounded as
// they are, rows of this size would cost 5 bits.
void sees_no_centre_of_weights(const LayerKind& kind, const RunChoices& choices) {
  const auto layer = kind.make({.groups = 2, .rows = 2, .hidden = 64});
  Tensors in = layer->inputs();
  if (!in.contains("gain_h")) return;  // without LN all is seen
  for (const char* name : {"W_x", "W_h"}) make_exact(in[name]);
  const Tensors before = run(*layer, in, choices);
  for (const char* name : {"W_x", "W_h"}) add_row(in[name], 4 * layer->sizes().hidden);

  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(std::to_string(ranks) + " model ranks");
    expect_same_bits(before, run(*layer, in, on_ranks(choices, ranks)));
  }
}

std::vector<LayerCheck> common_checks_and(const LayerCheck& more) {
  return {{"MatchesTheReference", matches_the_reference},
          {"HasTheSameBitsOnEveryModelAxis", has_the_same_bits_on_every_model_axis},
          {"HasTheSameBitsInPassesOverTheLaneGroups", has_the_same_bits_in_passes_over_the_lane_groups},
          {"KeepsNothingOfAnEarlierRun", keeps_nothing_of_an_earlier_run},
          more};
}

}  // namespace

const std::vector<LayerKind>& layer_kinds() {
  constexpr auto kNone = Normalization::none, kLayer = Normalization::layer;
  constexpr auto kSharded = Exchange::sharded, kCell = Exchange::cell, kReplicated = Exchange::replicated;
  static const std::vector<LayerKind> kinds = {
      {"LstmSharded", lstm({kNone, kSharded})},
      {"LstmCell", lstm({kNone, kCell}), /*of_cpus=*/true},
      {"LstmReplicated", lstm({kNone, kReplicated})},
      {"LnLstmSharded", lstm({kLayer, kSharded})},
      {"LnLstmCell", lstm({kLayer, kCell}), /*of_cpus=*/true},
      {"LnLstmReplicated", lstm({kLayer, kReplicated})},
      {"LstmWithLengths", lstm({kNone, kSharded, /*lengths=*/true})},
      {"LnLstmShardedWithLengths", lstm({kLayer, kSharded, /*lengths=*/true})},
      {"LnLstmCellWithLengths", lstm({kLayer, kCell, /*lengths=*/true}), /*of_cpus=*/true},
      {"LnLstmReplicatedWithLengths", lstm({kLayer, kReplicated, /*lengths=*/true})},
      {"LnLstmFromZeroState", lstm({.zero_state = true})},
      {"Embedding", make_embedding_case},
      {"VariationalDropout", [](const LayerSizes& sizes) { return make_dropout_case(sizes, true); }},
      {"PlainDropout", [](const LayerSizes& sizes) { return make_dropout_case(sizes, false); }},
      {"SoftmaxOutput", make_softmax_case}};
  return kinds;
}

const std::vector<LayerKind>& input_table_kinds() {
  const auto with_table = [](const std::string& name, LstmChoices choices) {
    choices.table = true;
    return LayerKind{name, lstm(choices)};
  };
  constexpr auto kNone = Normalization::none, kLayer = Normalization::layer;
  constexpr auto kSharded = Exchange::sharded, kReplicated = Exchange::replicated;
  static const std::vector<LayerKind> kinds = {
      with_table("LstmOfRows", {kNone, kSharded}),
      with_table("LstmOfRowsReplicated", {kNone, kReplicated}),
      with_table("LnLstmOfRows", {kLayer, kSharded}),
      with_table("LnLstmOfRowsReplicated", {kLayer, kReplicated}),
      with_table("LstmOfRowsWithLengths", {kNone, kReplicated, /*lengths=*/true}),
      with_table("LnLstmOfRowsWithLengths", {kLayer, kSharded, /*lengths=*/true}),
      with_table("LnLstmOfRowsOfCellsWithLengths", {kLayer, Exchange::cell, /*lengths=*/true}),
      with_table("LnLstmOfRowsReplicatedWithLengths", {kLayer, kReplicated, /*lengths=*/true})};
  return kinds;
}

const std::vector<LayerKind>& bf16_layer_kinds() {
  constexpr auto kNone = Normalization::none, kLayer = Normalization::layer;
  constexpr auto kSharded = Exchange::sharded, kReplicated = Exchange::replicated;
  const auto bf16 = [](LstmChoices choices) {
    choices.precision = Precision::bf16;
    return lstm(choices);
  };
  static const std::vector<LayerKind> kinds = {
      {"Bf16LstmSharded", bf16({kNone, kSharded})},
      {"Bf16LnLstmSharded", bf16({kLayer, kSharded})},
      {"Bf16LnLstmOfCells", bf16({kLayer, Exchange::cell}), /*of_cpus=*/true},
      {"Bf16LstmOfRows", bf16({.normalization = kNone, .table = true}), /*of_cpus=*/true},
      {"Bf16LnLstmOfRows", bf16({.normalization = kLayer, .table = true}), /*of_cpus=*/true},
      {"Bf16LstmReplicatedWithLengths", bf16({kNone, kReplicated, /*lengths=*/true})},
      {"Bf16LnLstmReplicatedWithLengths", bf16({kLayer, kReplicated, /*lengths=*/true})}};
  return kinds;
}

// Widths that fill vectors of a SIMD unit and that do not, more rows than one product takes at a time, and
// the least there is.
const std::vector<LayerSizes>& layer_sizes() {
  static const std::vector<LayerSizes> sizes = {
      {.time_steps = 5, .groups = 4, .rows = 3, .blocks = 8, .inputs = 16, .hidden = 32, .classes = 11},
      {.time_steps = 3, .groups = 4, .rows = 5, .blocks = 8, .inputs = 24, .hidden = 88, .classes = 70},
      {.time_steps = 9, .groups = 4, .rows = 16, .blocks = 8, .inputs = 8, .hidden = 16, .classes = 19},
      {.time_steps = 1, .groups = 4, .rows = 1, .blocks = 8, .inputs = 8, .hidden = 8, .classes = 3},
  };
  return sizes;
}

const std::vector<LayerCheck>& layer_checks() {
  static const std::vector<LayerCheck> checks = common_checks_and(
      {"HasGradientsThatMatchDifferencesOfItsOwnLoss", has_gradients_that_match_differences_of_its_own_loss});
  return checks;
}

const std::vector<LayerCheck>& bf16_layer_checks() {
  static const std::vector<LayerCheck> checks =
      common_checks_and({"SeesNoCentreOfWeights", sees_no_centre_of_weights});
  return checks;
}

void for_each_size(const LayerKind& kind, const std::vector<LayerSizes>& all_sizes,
                   const std::function<void(const LayerCase& layer, const Tensors& in)>& check) {
  for (const LayerSizes& sizes : all_sizes) {
    SCOPED_TRACE("hidden " + std::to_string(sizes.hidden));
    const auto layer = kind.make(sizes);
    check(*layer, layer->inputs());
  }
}

void expect_same_bits(const Tensors& left, const Tensors& right) {
  for (const auto& [name, values] : left) EXPECT_TRUE(same_bits(values, right.at(name))) << name;
}

}  // namespace lamina::test
