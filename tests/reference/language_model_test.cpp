#include "tests/reference/language_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/reference/finite_difference.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::reference {
namespace {

using test::all_close;
using test::random_integers;
using test::random_values;

constexpr double kTolerance = 1e-8;

TEST(ReferenceSoftmax, LossByHand) {
  // Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8.
  const SoftmaxInput input{3, {1}, {0, 0, 0}, {0, std::log(2), std::log(5)}, {1}};

  const SoftmaxResult result = softmax_cross_entropy(input, 1);

  EXPECT_NEAR(result.losses[0], std::log(4), 1e-15);
  EXPECT_TRUE(all_close(result.d_bias, Vector{0.125, -0.75, 0.625}, 1e-15));
}

TEST(ReferenceSoftmax, GradientsMatchDifferences) {
  SoftmaxInput input{4,
                     random_values<double>("x", 5 * 3),
                     random_values<double>("W", 4 * 3),
                     random_values<double>("bias", 4),
                     {0, 3, -1, 2, 2}};
  constexpr double kScale = 0.3;
  const SoftmaxResult result = softmax_cross_entropy(input, kScale);
  const auto loss = [&] {
    double sum = 0;
    for (const double value : softmax_cross_entropy(input, kScale).losses) sum += value;
    return kScale * sum;
  };

  EXPECT_TRUE(all_close(result.d_x, finite_differences(input.x, loss), kTolerance));
  EXPECT_TRUE(all_close(result.d_W, finite_differences(input.W, loss), kTolerance));
  EXPECT_TRUE(all_close(result.d_bias, finite_differences(input.bias, loss), kTolerance));
  EXPECT_EQ(result.losses[2], 0);
}

TEST(ReferenceDropout, FactorsAreSharedOverTimeWhenVariational) {
  const RandomStream stream(3, "dropout");
  constexpr std::size_t T = 3, B = 2, W = 40;
  const Vector variational = dropout_factors(stream, 5, 0.25, true, T, B, W);
  const Vector plain = dropout_factors(stream, 5, 0.25, false, T, B, W);

  const Vector first(variational.begin(), variational.begin() + B * W);
  const Vector second(variational.begin() + B * W, variational.begin() + 2 * B * W);
  EXPECT_EQ(first, second);
  EXPECT_NE(Vector(plain.begin(), plain.begin() + B * W),
            Vector(plain.begin() + B * W, plain.begin() + 2 * B * W));
  for (const double factor : plain) EXPECT_TRUE(factor == 0 || factor == 1 / 0.75) << factor;
}

TEST(ReferenceLanguageModel, GradientsMatchDifferences) {
  const LanguageModelShape shape{5, 3, 4, 2, Normalization::layer, 1e-5};
  constexpr int T = 3, B = 2;
  LanguageModelParameters p = zero_parameters(shape);
  for (const auto& [name, values] : p.tensors()) {
    const bool gain = name.find("gain") != std::string::npos;
    *values = random_values<double>(name, values->size(), gain ? 0.5 : -1, gain ? 1.5 : 1);
  }
  const RandomStream stream(3, "dropout");
  const auto state = random_values<double>("state", B * 4);
  LanguageModelInput input{.time_steps = T,
                           .batch = B,
                           .tokens = {4, 0, 2, 2, 1, 3},
                           .targets = {0, 2, -1, 1, 4, 3},
                           .lengths = {3, 2},
                           .h_first = {state, state},
                           .c_first = {state, state},
                           .dropout = {dropout_factors(stream, 1, 0.4, true, T, B, 3),
                                       dropout_factors(stream, 2, 0.4, false, T, B, 4),
                                       dropout_factors(stream, 3, 0.4, true, T, B, 4)}};
  constexpr double kScale = 0.7;
  const auto loss = [&] { return kScale * language_model(shape, p, input, kScale).loss(); };

  LanguageModelResult result = language_model(shape, p, input, kScale);

  const auto analytic = result.gradients.tensors();
  const auto tensors = p.tensors();
  ASSERT_EQ(analytic.size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i)
    EXPECT_TRUE(all_close(*analytic[i].second, finite_differences(*tensors[i].second, loss), kTolerance))
        << tensors[i].first;
}

}  // namespace
}  // namespace lamina::reference
