#include <gtest/gtest.h>

#include <vector>

#include "kernels/backends.h"
#include "model/language_model.h"
#include "tests/support/close.h"

namespace lamina::test {
namespace {

constexpr int kTimeSteps = 3, kLayers = 2;
constexpr std::size_t kTokens = kTimeSteps * 4;

/// With a vocabulary for which the first layer reads rows of the embedding by itself, and one too large for
/// it.
class BackwardHooksTest : public ::testing::TestWithParam<int> {
 protected:
  static ModelSettings settings() {
    ModelSettings settings;
    settings.layers = kLayers;
    settings.hidden = 8;
    settings.embedding = 4;
    return settings;
  }
  static std::vector<float> copy(std::span<const float> values) { return {values.begin(), values.end()}; }

  void forward() {
    CarriedState state(*backend_, kLayers, settings().hidden, kTiling);
    model_.forward({kTimeSteps, tokens_, tokens_, {}}, state, 0, std::nullopt);
  }

  static constexpr Tiling kTiling{Share{2, 0, 2}, Share{2, 0, 2}, 2};
  std::vector<std::int32_t> tokens_ = std::vector<std::int32_t>(kTokens, 2);
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  LanguageModel model_{settings(), GetParam(), kTimeSteps, kTiling, *backend_, *alone_, 1};
};

// What a hook is told about is not changed by what the pass still does.
TEST_P(BackwardHooksTest, GradientsAreSetWhenTheHookSaysSo) {
  ParameterTable& table = model_.parameters();
  std::vector<float> as_told(table.gradients().size());
  int next_last = static_cast<int>(table.all().size()), calls = 0;

  forward();
  model_.backward(1, {.gradients_are_set = [&](ParameterRange range) {
                    EXPECT_EQ(range.last, next_last);
                    next_last = range.first;
                    ++calls;
                    const std::span<float> set = table.gradients(range);
                    std::copy(set.begin(), set.end(),
                              as_told.begin() + (set.data() - table.gradients().data()));
                  }});

  EXPECT_EQ(next_last, 0);
  EXPECT_EQ(calls, kLayers + 2);
  EXPECT_TRUE(same_bits(as_told, copy(table.gradients())));
}

// What it moves on would wait for the products of weight gradients, the longest work there is.
TEST_P(BackwardHooksTest, OtherWorkGetsItsTurnInEveryTimeStepAndProduct) {
  constexpr int kProducts = 2 * kTiling.groups.local * kTiling.blocks.local;  // for W_h and W_x
  int turns = 0;

  forward();
  model_.backward(1, {.side_work = {.advance = [&] { ++turns; }}});

  EXPECT_GE(turns, kLayers * (kTimeSteps + kProducts));
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, BackwardHooksTest, ::testing::Values(3, 5));

}  // namespace
}  // namespace lamina::test
