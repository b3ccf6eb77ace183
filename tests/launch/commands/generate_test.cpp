#include "launch/commands/generate.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace lamina {
namespace {

TEST(ChooseToken, TemperatureZeroTakesTheFirstOfTheLargest) {
  const std::array logits{1.0f, 3.0f, 3.0f, 2.0f};

  EXPECT_EQ(choose_token(logits, 0, 0.0), 1);
  EXPECT_EQ(choose_token(logits, 0, 0.999), 1);
}

TEST(ChooseToken, InvertsTheCumulativeDistribution) {
  const std::array logits{std::log(1.0f), std::log(2.0f), std::log(5.0f)};  // 1/8, 2/8, 5/8

  EXPECT_EQ(choose_token(logits, 1, 0.0), 0);
  EXPECT_EQ(choose_token(logits, 1, 0.124), 0);
  EXPECT_EQ(choose_token(logits, 1, 0.126), 1);
  EXPECT_EQ(choose_token(logits, 1, 0.374), 1);
  EXPECT_EQ(choose_token(logits, 1, 0.376), 2);
  EXPECT_EQ(choose_token(logits, 1, 1 - 0x1p-53), 2);
}

TEST(ChooseToken, TemperatureSharpensAndFlattens) {
  const std::array logits{0.0f, 1.0f};  // the first has share 1 / (1 + exp(1 / temperature))

  EXPECT_EQ(choose_token(logits, 0.5, 0.118), 0);
  EXPECT_EQ(choose_token(logits, 0.5, 0.120), 1);
  EXPECT_EQ(choose_token(logits, 2, 0.377), 0);
  EXPECT_EQ(choose_token(logits, 2, 0.378), 1);
}

TEST(ChooseToken, NeverTakesWhatIsImpossible) {
  const std::array logits{-1e30f, 0.0f, -1e30f, 1e-6f, -1e30f};

  for (const double u : {0.0, 0.25, 0.5, 0.75, 1 - 0x1p-53}) {
    const std::int32_t token = choose_token(logits, 1, u);
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
}

TEST(ChooseToken, SurvivesTinyTemperatures) {
  const std::array logits{89.0f, 90.0f, -80.0f};

  EXPECT_EQ(choose_token(logits, 1e-300, 0.5), 1);
}

}  // namespace
}  // namespace lamina
