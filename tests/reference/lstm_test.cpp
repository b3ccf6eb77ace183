// The reference's gradients against finite differences: what every other test of a gradient rests on.
#include "tests/reference/lstm.h"

#include <gtest/gtest.h>

#include "tests/reference/finite_difference.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::reference {
namespace {

using test::all_close;
using test::random_values;

constexpr double kTolerance = 1e-8;  // of the tensor's largest gradient; differences are good to about 1e-10

struct Problem {
  LstmShape shape;
  LstmParameters parameters;
  LstmInput input;
  Vector d_output;

  double loss() const {
    const LstmOutput out = lstm_forward(shape, parameters, input);
    double sum = 0;
    for (std::size_t i = 0; i < out.h.size(); ++i) sum += d_output[i] * out.h[i];
    return sum;
  }
  LstmGradients gradients() const {
    return lstm_backward(shape, parameters, input, lstm_forward(shape, parameters, input), d_output);
  }
};

Problem make_problem(Normalization normalization, std::vector<int> lengths = {}) {
  constexpr int T = 4, B = 3, I = 3, H = 4;
  Problem p{{I, H, normalization, 1e-5}, {}, {}, random_values<double>("d_output", T * B * H)};
  p.parameters = zero_parameters(p.shape);
  for (const auto& [name, values] : p.parameters.tensors()) {
    const bool gain = name.starts_with("gain");
    *values = random_values<double>(name, values->size(), gain ? 0.5 : -1, gain ? 1.5 : 1);
  }
  p.input = {T,
             B,
             random_values<double>("x", T * B * I),
             random_values<double>("h_first", B * H),
             random_values<double>("c_first", B * H),
             std::move(lengths)};
  return p;
}

void expect_gradients_match_differences(Problem p) {
  LstmGradients gradients = p.gradients();
  const auto analytic = gradients.parameters.tensors();
  const auto tensors = p.parameters.tensors();
  const auto loss = [&] { return p.loss(); };

  for (std::size_t i = 0; i < tensors.size(); ++i)
    EXPECT_TRUE(all_close(*analytic[i].second, finite_differences(*tensors[i].second, loss), kTolerance))
        << tensors[i].first;
  EXPECT_TRUE(all_close(gradients.x, finite_differences(p.input.x, loss), kTolerance)) << "x";
  EXPECT_TRUE(all_close(gradients.h_first, finite_differences(p.input.h_first, loss), kTolerance))
      << "h_first";
  EXPECT_TRUE(all_close(gradients.c_first, finite_differences(p.input.c_first, loss), kTolerance))
      << "c_first";
}

TEST(ReferenceLstm, GradientsOfThePlainCell) {
  expect_gradients_match_differences(make_problem(Normalization::none));
}

TEST(ReferenceLstm, GradientsOfTheNormalizedCell) {
  expect_gradients_match_differences(make_problem(Normalization::layer));
}

TEST(ReferenceLstm, GradientsWithALargeEpsilon) {
  Problem p = make_problem(Normalization::layer);
  p.shape.epsilon = 0.3;
  expect_gradients_match_differences(std::move(p));
}

TEST(ReferenceLstm, GradientsWithLengths) {
  expect_gradients_match_differences(make_problem(Normalization::layer, {4, 1, 2}));
  expect_gradients_match_differences(make_problem(Normalization::none, {3, 0, 4}));
}

// h = 0 makes the variance of W_h h zero, and LN(0) = 0: only epsilon keeps the gradient by h finite.
TEST(ReferenceLstm, GradientsFromAZeroState) {
  Problem p = make_problem(Normalization::layer);
  p.input.h_first.assign(p.input.h_first.size(), 0);
  p.shape.epsilon = 1e-2;  // its root must be large beside the step of the differences
  LstmGradients gradients = p.gradients();
  const auto loss = [&] { return p.loss(); };

  EXPECT_TRUE(all_close(gradients.parameters.W_h, finite_differences(p.parameters.W_h, loss), kTolerance));
  EXPECT_TRUE(all_close(gradients.h_first, finite_differences(p.input.h_first, loss, 1e-5), kTolerance));
}

TEST(ReferenceLstm, GradientByAZeroStateGrowsWithTheRootOfEpsilon) {
  Problem p = make_problem(Normalization::layer);
  p.input.h_first.assign(p.input.h_first.size(), 0);
  p.input.time_steps = 1;
  p.input.x.resize(p.input.x.size() / 4);
  p.d_output.resize(p.d_output.size() / 4);

  p.shape.epsilon = 1e-6;
  const double small = test::scale_of(p.gradients().h_first);
  p.shape.epsilon = 1e-12;

  // The norms of x and c see epsilon too, beside variances near 1.
  EXPECT_NEAR(test::scale_of(p.gradients().h_first) / small, 1e3, 1e-1);
}

// One unit, one step: the four gates of each operand have mean 0 and normalize to 1 and -1.
TEST(ReferenceLstm, OneUnitByHand) {
  const LstmShape shape{1, 1, Normalization::layer, 1e-30};
  const LstmParameters p{.W_x = {1, -1, 1, -1},
                         .W_h = {3, 3, -3, -3},
                         .gain_x = {1, 2, 3, 4},
                         .gain_h = {0.5, 0.5, 0.5, 0.5},
                         .bias = {0.1, 0.2, 0.3, 0.4},
                         .gain_c = {0},  // one cell's variance is 0
                         .bias_c = {0.25}};
  const LstmInput input{1, 1, {2}, {0.5}, {0.75}, {}};

  const LstmOutput out = lstm_forward(shape, p, input);

  const auto sigmoid = [](double z) { return 1 / (1 + std::exp(-z)); };
  const double f = sigmoid(1 + 0.5 + 0.1), i = sigmoid(-2 + 0.5 + 0.2), o = sigmoid(3 - 0.5 + 0.3);
  const double g = std::tanh(-4 - 0.5 + 0.4);
  EXPECT_NEAR(out.c[0], f * 0.75 + i * g, 1e-15);
  EXPECT_NEAR(out.h[0], o * std::tanh(0.25), 1e-15);
}

TEST(ReferenceLstm, MaskedStepsCopyTheState) {
  const Problem p = make_problem(Normalization::layer, {4, 1, 0});
  const LstmOutput out = lstm_forward(p.shape, p.parameters, p.input);
  const auto h = [&](std::size_t t, std::size_t b, std::size_t u) { return out.h[(t * 3 + b) * 4 + u]; };

  for (std::size_t u = 0; u < 4; ++u) {
    EXPECT_EQ(h(3, 1, u), h(0, 1, u));
    EXPECT_EQ(h(3, 2, u), p.input.h_first[2 * 4 + u]);
    EXPECT_NE(h(3, 0, u), h(2, 0, u));
    EXPECT_EQ(out.h_last[1 * 4 + u], h(0, 1, u));
    EXPECT_EQ(out.c_last[2 * 4 + u], p.input.c_first[2 * 4 + u]);
  }
}

}  // namespace
}  // namespace lamina::reference
