// What every layer must do, as one list of checks that each kind passes.
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/close.h"
#include "tests/support/layer_cases.h"

namespace lamina::test {
namespace {

struct Candidate {
  std::string name;
  std::function<std::unique_ptr<LayerCase>(const LayerSizes&)> make;
};

std::function<std::unique_ptr<LayerCase>(const LayerSizes&)> lstm(const LstmChoices& choices) {
  return [choices](const LayerSizes& sizes) { return make_lstm_case(sizes, choices); };
}

std::vector<Candidate> candidates() {
  constexpr auto kNone = Normalization::none, kLayer = Normalization::layer;
  constexpr auto kSharded = Exchange::sharded, kReplicated = Exchange::replicated;
  return {{"LstmSharded", lstm({kNone, kSharded})},
          {"LstmReplicated", lstm({kNone, kReplicated})},
          {"LnLstmSharded", lstm({kLayer, kSharded})},
          {"LnLstmReplicated", lstm({kLayer, kReplicated})},
          {"LstmWithLengths", lstm({kNone, kSharded, /*lengths=*/true})},
          {"LnLstmShardedWithLengths", lstm({kLayer, kSharded, /*lengths=*/true})},
          {"LnLstmReplicatedWithLengths", lstm({kLayer, kReplicated, /*lengths=*/true})},
          {"LnLstmFromZeroState", lstm({.zero_state = true})},
          {"Embedding", make_embedding_case},
          {"VariationalDropout", [](const LayerSizes& sizes) { return make_dropout_case(sizes, true); }},
          {"PlainDropout", [](const LayerSizes& sizes) { return make_dropout_case(sizes, false); }},
          {"SoftmaxOutput", make_softmax_case}};
}

/// Widths that fill vectors of a SIMD unit and that do not, more rows than one product takes at a time, and
/// the least there is.
const std::vector<LayerSizes> kSizes = {
    {.time_steps = 5, .groups = 4, .rows = 3, .blocks = 8, .inputs = 16, .hidden = 32, .classes = 11},
    {.time_steps = 3, .groups = 4, .rows = 5, .blocks = 8, .inputs = 24, .hidden = 88, .classes = 70},
    {.time_steps = 9, .groups = 4, .rows = 16, .blocks = 8, .inputs = 8, .hidden = 16, .classes = 19},
    {.time_steps = 1, .groups = 4, .rows = 1, .blocks = 8, .inputs = 8, .hidden = 8, .classes = 3},
};

class EveryLayer : public ::testing::TestWithParam<Candidate> {
 protected:
  /// check(case, its inputs) for every size.
  template <class Check>
  void for_each_size(const Check& check) {
    for (const LayerSizes& sizes : kSizes) {
      SCOPED_TRACE("hidden " + std::to_string(sizes.hidden));
      const auto layer = GetParam().make(sizes);
      check(*layer, layer->inputs());
    }
  }
};

void expect_same_bits(const Tensors& left, const Tensors& right) {
  for (const auto& [name, values] : left) EXPECT_TRUE(same_bits(values, right.at(name))) << name;
}

// Float rounding is 6e-8; sums here have up to a few hundred terms, and layer normalization magnifies by the
// inverse of the deviation. The worst seen was 4e-6 of a tensor's largest value; a wrong term is far outside.
TEST_P(EveryLayer, MatchesTheReference) {
  for_each_size([](const LayerCase& layer, const Tensors& in) {
    const Tensors actual = run(layer, in);

    for (const auto& [name, expected] : layer.reference(in))
      EXPECT_TRUE(all_close(actual.at(name), expected, 2e-5, std::max(scale_of(expected), 1e-3))) << name;
  });
}

TEST_P(EveryLayer, HasTheSameBitsOnEveryModelAxis) {
  for_each_size([](const LayerCase& layer, const Tensors& in) {
    const Tensors whole = run(layer, in);

    for (const int ranks : {2, 4, 8}) {
      SCOPED_TRACE(std::to_string(ranks) + " model ranks");
      expect_same_bits(whole, run(layer, in, {.model_ranks = ranks}));
    }
  });
}

TEST_P(EveryLayer, HasTheSameBitsOnEveryThreadCount) {
  for_each_size([](const LayerCase& layer, const Tensors& in) {
    const Tensors one = run(layer, in);

    expect_same_bits(one, run(layer, in, {.threads = 3}));
    expect_same_bits(one, run(layer, in, {.model_ranks = 2, .threads = 2}));
  });
}

TEST_P(EveryLayer, HasTheSameBitsInPassesOverTheLaneGroups) {
  for_each_size([](const LayerCase& layer, const Tensors& in) {
    const Tensors at_once = run(layer, in);

    expect_same_bits(at_once, run(layer, in, {.passes = 2}));
    expect_same_bits(at_once, run(layer, in, {.model_ranks = 2, .passes = 4}));
  });
}

TEST_P(EveryLayer, KeepsNothingOfAnEarlierRun) {
  for_each_size([](const LayerCase& layer, const Tensors& in) {
    const Tensors fresh = run(layer, in);

    expect_same_bits(fresh, run(layer, in, {.used = true}));
    expect_same_bits(fresh, run(layer, in, {.model_ranks = 4, .used = true}));
  });
}

/// The loss whose gradients the layer gives, from its own forward pass.
double loss_of(const LayerCase& layer, const Tensors& in) {
  const Tensors out = run(layer, in);
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
                  const std::vector<double>& direction, double step) {
  const auto at = [&](double offset) {
    Tensors moved = in;
    for (std::size_t i = 0; i < direction.size(); ++i)
      moved[name][i] = static_cast<float>(static_cast<double>(in.at(name)[i]) + offset * direction[i]);
    return loss_of(layer, moved);
  };
  return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
}

// Along the gradient itself, normalized, the derivative is the gradient's length: a missing, doubled or
// misplaced part shows. The step is large because the losses are sums of floats (noise of 1e-6 / step).
TEST_P(EveryLayer, GradientsMatchDifferencesOfItsOwnLoss) {
  const auto layer = GetParam().make(kSizes[0]);
  const Tensors in = layer->inputs();
  const Tensors out = run(*layer, in);

  for (const auto& [name, values] : in) {
    if (!out.contains("d_" + name)) continue;
    std::vector<double> direction(out.at("d_" + name).begin(), out.at("d_" + name).end());
    double length = 0;
    for (const double value : direction) length += value * value;
    length = std::sqrt(length);
    for (double& value : direction) value /= length;
    EXPECT_NEAR(difference(*layer, in, name, direction, 0.02) / length, 1, 1e-3) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, EveryLayer, ::testing::ValuesIn(candidates()),
                         [](const auto& candidate) { return candidate.param.name; });

}  // namespace
}  // namespace lamina::test
