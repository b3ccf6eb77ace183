// Recurrent layers beside each other: what they compute is what they compute one after another, and they wait
// for their peers as often as one layer does.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
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

/// One rank's model.
class Trained {
 public:
  Trained(const Setting& s, Communicator& axis, int vocabulary = kVocabulary)
      : vocabulary_(vocabulary),
        tiling_{Share::of(kGroups, 0, 1), Share::of(8, axis.rank(), axis.size()), kRows},
        model_(s.model(), vocabulary, kMaxSteps, tiling_, *backend_, axis, /*seed=*/5),
        state_(*backend_, s.layers, kHidden, tiling_) {}

  void forward(int time_steps, std::span<const std::int32_t> lengths = {},
               std::optional<std::uint64_t> dropout_step = std::nullopt) {
    const std::size_t characters = static_cast<std::size_t>(time_steps * kGroups * kRows);
    tokens_ = random_integers("tokens", characters, 0, vocabulary_ - 1);
    targets_ = random_integers("targets", characters, 0, vocabulary_ - 1);
    model_.forward({time_steps, tokens_, targets_, lengths}, state_, 0, dropout_step);
  }
  void backward(const std::function<void()>& advance = [] {}) {
    model_.backward(0.5f, {.side_work = {.advance = advance}});
  }
  std::vector<double> losses() {
    std::vector<double> losses(kGroups);
    model_.losses(losses);
    return losses;
  }
  std::vector<float> gradients() {
    const std::span<const float> all = model_.parameters().gradients();
    return {all.begin(), all.end()};
  }
  std::vector<float> states() {
    std::vector<float> states;
    for (int layer = 0; layer < state_.layers(); ++layer) {
      const auto [h, c] = state_.view(layer, 0, kGroups);
      states.insert(states.end(), h.begin(), h.end());
      states.insert(states.end(), c.begin(), c.end());
    }
    return states;
  }

 private:
  int vocabulary_;
  Tiling tiling_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  LanguageModel model_;
  CarriedState state_;
  std::vector<std::int32_t> tokens_, targets_;  // of the latest forward()
};

/// A forward and a backward pass from a zero state.
Outcome run(const Setting& s) {
  Outcome outcome;
  run_on_threads(s.ranks, [&](Communicator& axis) {
    Trained model(s, axis);
    const auto calls_of = [&](const auto& pass) {
      const std::int64_t before = axis.time_spent().calls;
      pass();
      return axis.time_spent().calls - before;
    };
    const std::int64_t forward = calls_of(
        [&] { model.forward(s.time_steps, s.lengths, s.dropout > 0 ? std::optional(1) : std::nullopt); });
    const std::int64_t backward = calls_of([&] { model.backward(); });
    const std::vector<double> losses = model.losses();
    if (axis.rank() == 0) outcome = {losses, model.states(), model.gradients(), forward, backward};
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

/// With 12 characters the first layer reads tokens: forward, the first to meet their peers are the waves.
constexpr int kFewCharacters = 12;

TEST(Wavefront, EndsForwardWhereAPeerIsLostInTheMiddleOfIt) {
  const auto leave_after_three_steps = [](Communicator& axis) {
    Trained model({}, axis, kFewCharacters);
    if (axis.rank() == 0) return model.forward(kMaxSteps);
    model.forward(3);
    axis.abandon("rank 1 is gone");
  };

  EXPECT_THROW(run_on_threads(2, leave_after_three_steps), PeerError);
}

/// Throws at its fourth call.
struct Trouble {
  int calls = 0;
  void operator()() {
    if (++calls == 4) throw UserError("trouble");
  }
};

TEST(Wavefront, EndsBackwardWhereARankFails) {
  std::atomic<int> peers_told = 0;
  const auto fail_in_fourth_wave = [&](Communicator& axis) {
    Trained model({}, axis);
    model.forward(kMaxSteps);
    if (axis.rank() == 1) return model.backward(Trouble());
    try {
      model.backward();
    } catch (const PeerError&) {
      ++peers_told;
      throw;
    }
  };

  EXPECT_THROW(run_on_threads(2, fail_in_fourth_wave), UserError);
  EXPECT_EQ(peers_told, 1);
}

// Layers that an exception left in the middle of a sequence begin the next one as if nothing had been.
TEST(Wavefront, BeginsAnewAfterAnException) {
  for (const char* exchange : {"sharded", "cell", "replicated"}) {
    SCOPED_TRACE(exchange);
    const auto axis = make_self_communicator();
    Trained interrupted({.exchange = exchange}, *axis), fresh({.exchange = exchange}, *axis);
    interrupted.forward(kMaxSteps);
    EXPECT_THROW(interrupted.backward(Trouble()), UserError);

    for (Trained* model : {&interrupted, &fresh}) {
      if (model == &fresh) model->forward(kMaxSteps);  // the state goes on
      model->forward(5);
      model->backward();
    }

    EXPECT_EQ(interrupted.losses(), fresh.losses());
    EXPECT_TRUE(same_bits(interrupted.gradients(), fresh.gradients()));
  }
}

// Of one time step: a layer more is a wave more, and its products. One after another it is a step more, the
// same products, and dL/dx of each lane group by itself.
TEST(Wavefront, GivesATurnToOtherWorkInEveryWave) {
  const auto axis = make_self_communicator();
  const auto turns = [&](const char* order, int layers) {
    Trained model({.order = order, .layers = layers}, *axis);
    model.forward(1);
    int count = 0;
    model.backward([&] { ++count; });
    return count;
  };

  EXPECT_EQ(turns("wavefront", 5) - turns("wavefront", 1),
            turns("sequential", 5) - turns("sequential", 1) - 4 * kGroups);
}

TEST(Wavefront, OfPassesOfAllLengthsWithDropoutAndWithout) {
  for (const char* exchange : {"sharded", "replicated"}) {
    SCOPED_TRACE(exchange);
    run_on_threads(2, [&](Communicator& axis) {
      const auto group = axis.split(0, axis.rank(), "sequential");
      Trained beside({.exchange = exchange, .dropout = 0.3}, axis);
      Trained after({.order = "sequential", .exchange = exchange, .dropout = 0.3}, *group);
      for (Trained* model : {&beside, &after}) {
        model->forward(kMaxSteps, {}, 1);
        model->backward();
        model->forward(2);  // as in validation
        model->forward(7, std::vector<std::int32_t>{7, 1, 0, 7, 3, 2}, 2);
        model->backward();
      }
      EXPECT_EQ(beside.losses(), after.losses());
      EXPECT_TRUE(same_bits(beside.states(), after.states()));
      EXPECT_TRUE(same_bits(beside.gradients(), after.gradients()));
    });
  }
}

TEST(Wavefront, OtherwiseEachLayerWaitsByItself) {
  const Outcome small = run({.order = "sequential", .layers = 4, .time_steps = 1});
  const Outcome large = run({.order = "sequential", .layers = 4, .time_steps = kMaxSteps});

  EXPECT_EQ(large.forward_calls - small.forward_calls, 4 * (kMaxSteps - 1) * 3);
}

}  // namespace
}  // namespace lamina::test
