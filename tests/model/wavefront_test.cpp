// Recurrent layers beside each other: what they compute is what they compute one after another, and they wait
// for their peers as often as one layer does.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/backends.h"
#include "model/language_model.h"
#include "runtime/error.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

constexpr int kVocabulary = 40, kRows = 3, kGroups = 2, kHidden = 16, kMaxSteps = 9;

struct Setting {
  const char* order = "wavefront";
  int layers = 3;
  int time_steps = 6;
  int ranks = 2;
  const char* exchange = "sharded";
  const char* normalization = "layer";
  double dropout = 0;
  std::vector<std::int32_t> lengths = {};

  ModelSettings model() const {
    ModelSettings settings;
    settings.layers = layers;
    settings.layer_order = order;
    settings.hidden = kHidden;
    settings.embedding = 8;
    settings.exchange = exchange;
    settings.normalization = normalization;
    settings.dropout = dropout;
    return settings;
  }
};

/// Of rank 0.
struct Outcome {
  std::vector<double> losses;
  std::vector<float> states, gradients;
  std::int64_t forward_calls = 0, backward_calls = 0;  ///< collectives over the model axis
};

/// A forward and a backward pass from a zero state.
Outcome run(const Setting& s) {
  Outcome outcome;
  run_on_threads(s.ranks, [&](Communicator& axis) {
    const auto backend = make_cpu_backend(1);
    const Tiling tiling{Share::of(kGroups, 0, 1), Share::of(8, axis.rank(), axis.size()), kRows};
    LanguageModel model(s.model(), kVocabulary, kMaxSteps, tiling, *backend, axis, /*seed=*/5);
    const std::size_t characters = static_cast<std::size_t>(s.time_steps * kGroups * kRows);
    const auto tokens = random_integers("tokens", characters, 0, kVocabulary - 1);
    const auto targets = random_integers("targets", characters, 0, kVocabulary - 1);
    CarriedState state(*backend, s.layers, kHidden, tiling);
    const std::int64_t before = axis.time_spent().calls;
    model.forward({s.time_steps, tokens, targets, s.lengths}, state, 0,
                  s.dropout > 0 ? std::optional(1) : std::nullopt);
    const std::int64_t between = axis.time_spent().calls;
    model.backward(0.5f);
    const std::int64_t after = axis.time_spent().calls;
    std::vector<double> losses(kGroups);
    model.losses(losses);
    if (axis.rank() != 0) return;
    const std::span<const float> gradients = model.parameters().gradients();
    outcome = {losses, {}, {gradients.begin(), gradients.end()}, between - before, after - between};
    for (int layer = 0; layer < s.layers; ++layer) {
      const auto [h, c] = state.view(layer, 0, kGroups);
      outcome.states.insert(outcome.states.end(), h.begin(), h.end());
      outcome.states.insert(outcome.states.end(), c.begin(), c.end());
    }
  });
  return outcome;
}

void expect_same(Setting s) {
  const Outcome beside = run(s);
  s.order = "sequential";
  const Outcome after = run(s);

  EXPECT_TRUE(same_bits(beside.losses, after.losses));
  EXPECT_TRUE(same_bits(beside.states, after.states));
  EXPECT_TRUE(same_bits(beside.gradients, after.gradients));
}

TEST(Wavefront, HasTheBitsOfLayersOneAfterAnother) {
  for (const char* exchange : {"sharded", "cell", "replicated"})
    for (const char* normalization : {"layer", "none"})
      for (const int ranks : {1, 2, 8}) {
        SCOPED_TRACE(std::string(exchange) + ", " + normalization + ", " + std::to_string(ranks) + " ranks");
        expect_same({.ranks = ranks, .exchange = exchange, .normalization = normalization});
      }
}

TEST(Wavefront, OfMoreLayersThanTimeSteps) { expect_same({.layers = 5, .time_steps = 2}); }

TEST(Wavefront, OfOneTimeStep) { expect_same({.time_steps = 1}); }

TEST(Wavefront, OfOneLayer) { expect_same({.layers = 1}); }

TEST(Wavefront, OfTheLongestSequence) { expect_same({.time_steps = kMaxSteps}); }

TEST(Wavefront, WithSequencesOfDifferentLengths) { expect_same({.lengths = {6, 3, 0, 5, 1, 6}}); }

TEST(Wavefront, WithDropoutBetweenLayers) {
  for (const char* exchange : {"sharded", "replicated"}) expect_same({.exchange = exchange, .dropout = 0.3});
}

// T - 1 more waves of as many exchanges as one layer has in a step; but for the lowest layer's last step
// backward, whose dL/dh nobody wants.
TEST(Wavefront, WaitsForPeersOnceForAllLayers) {
  for (const auto& [exchange, of_step] : {std::pair{"sharded", 3}, {"cell", 2}, {"replicated", 1}})
    for (const int layers : {1, 2, 4}) {
      SCOPED_TRACE(std::string(exchange) + ", " + std::to_string(layers) + " layers");
      const Outcome small = run({.layers = layers, .time_steps = 1, .exchange = exchange});
      const Outcome large = run({.layers = layers, .time_steps = kMaxSteps, .exchange = exchange});

      EXPECT_EQ(large.forward_calls - small.forward_calls, (kMaxSteps - 1) * of_step);
      EXPECT_EQ(large.backward_calls - small.backward_calls, (kMaxSteps - 1) * of_step);
    }
}

// In the middle of a wave: the layers under way end there, and the peer is not waited for.
TEST(Wavefront, EndsWhereAPeerIsLost) {
  const auto lost_in = [](bool in_backward) {
    run_on_threads(2, [&](Communicator& axis) {
      const auto backend = make_cpu_backend(1);
      const Tiling tiling{Share::of(kGroups, 0, 1), Share::of(8, axis.rank(), 2), kRows};
      LanguageModel model(Setting().model(), kVocabulary, kMaxSteps, tiling, *backend, axis, /*seed=*/5);
      CarriedState state(*backend, Setting().layers, kHidden, tiling);
      const std::vector<std::int32_t> tokens(kMaxSteps * kGroups * kRows);
      const auto forward = [&] { model.forward({kMaxSteps, tokens, tokens, {}}, state, 0, std::nullopt); };
      if (in_backward) forward();
      if (axis.rank() == 1) return axis.abandon("rank 1 is gone");
      if (in_backward)
        model.backward(1);
      else
        forward();
    });
  };

  EXPECT_THROW(lost_in(false), PeerError);
  EXPECT_THROW(lost_in(true), PeerError);
}

TEST(Wavefront, OtherwiseEachLayerWaitsByItself) {
  const Outcome small = run({.order = "sequential", .layers = 4, .time_steps = 1});
  const Outcome large = run({.order = "sequential", .layers = 4, .time_steps = kMaxSteps});

  EXPECT_EQ(large.forward_calls - small.forward_calls, 4 * (kMaxSteps - 1) * 3);
}

}  // namespace
}  // namespace lamina::test
