// What layer normalization leaves unchanged, and what it does not (arXiv:1607.06450, section 5.1 and table
// 1), on the layer that trains: re-scaling and re-centring of weights and inputs, and what follows for
// gradients. W_x x and W_h h are normalized each on its own, so each can be transformed on its own.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/backends.h"
#include "tests/support/close.h"
#include "tests/support/layer_cases.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

// Outputs and gradients are of order 1; a transform moves them by rounding only, or by much more.
constexpr double kUnchanged = 1e-5;
constexpr double kChanged = 1e-2;

constexpr LayerSizes kSizes{.time_steps = 5, .groups = 2, .rows = 2, .blocks = 8, .inputs = 16, .hidden = 32};

class Invariance : public ::testing::TestWithParam<Exchange> {
 protected:
  explicit Invariance(const LayerSizes& sizes = kSizes, float epsilon = 0) : sizes_(sizes) {
    use(Normalization::layer, epsilon);
  }

  void use(Normalization normalization, float epsilon) {
    layer_ =
        make_lstm_case(sizes_, {.normalization = normalization, .exchange = GetParam(), .epsilon = epsilon});
    in_ = layer_->inputs();
    before_ = run();
  }
  Tensors run() const { return test::run(*layer_, in_, {.model_ranks = 2}); }

  void scale(const std::string& name, float factor) {
    for (float& value : in_[name]) value *= factor;
  }
  /// Adds the same row to every row of a matrix.
  void add_row(const std::string& name) {
    const std::size_t rows = 4 * static_cast<std::size_t>(sizes_.hidden), width = in_[name].size() / rows;
    const std::vector<float> row = random_values("row of " + name, width);
    for (std::size_t i = 0; i < in_[name].size(); ++i) in_[name][i] += row[i % width];
  }

  LayerSizes sizes_;
  std::unique_ptr<LayerCase> layer_;
  Tensors in_, before_;
};

const std::vector<std::string> kStates = {"output", "h_last", "c_last"};
const std::vector<std::string> kAll = {"output",   "h_last",   "c_last", "d_x",      "d_W_x",   "d_W_h",
                                       "d_gain_x", "d_gain_h", "d_bias", "d_gain_c", "d_bias_c"};

void expect_unchanged(const Tensors& before, const Tensors& after) {
  for (const std::string& name : kStates)
    EXPECT_TRUE(all_close(after.at(name), before.at(name), kUnchanged)) << name;
}

void expect_changed(const Tensors& before, const Tensors& after) {
  for (const std::string& name : kStates)
    EXPECT_FALSE(all_close(after.at(name), before.at(name), kChanged)) << name;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::transform_reduce(a.begin(), a.end(), b.begin(), 0.0, std::plus<>(),
                               [](float x, float y) { return double{x} * double{y}; });
}

std::vector<float> times(const std::vector<float>& values, float factor) {
  std::vector<float> out = values;
  for (float& value : out) value *= factor;
  return out;
}

// --- what the states do not see ---------------------------------------------------------------------------

TEST_P(Invariance, ToScaleOfWeightMatrices) {
  scale("W_h", 0.3f);
  scale("W_x", 7.0f);

  expect_unchanged(before_, run());
}

TEST_P(Invariance, ToCentreOfWeightMatrices) {
  add_row("W_h");

  expect_unchanged(before_, run());
}

TEST_P(Invariance, ToScaleAndCentreTogether) {
  scale("W_x", 0.3f);
  add_row("W_x");

  expect_unchanged(before_, run());
}

TEST_P(Invariance, ToScaleOfEachInputAlone) {
  const std::size_t cases = in_["x"].size() / static_cast<std::size_t>(sizes_.inputs);
  const std::vector<float> factors = random_values("factors", cases, 0.2, 5);
  for (std::size_t i = 0; i < in_["x"].size(); ++i) in_["x"][i] *= factors[i * cases / in_["x"].size()];

  expect_unchanged(before_, run());
}

TEST_P(Invariance, ToScaleOfTheFirstState) {
  scale("h_first", 5.0f);

  expect_unchanged(before_, run());
}

// Powers of two commute with rounding, so not one bit may differ, of gradients either.
TEST_P(Invariance, ToPowersOfTwoIsBitwise) {
  scale("W_h", 0x1p7f);
  scale("W_x", 0x1p-5f);
  scale("h_first", 0x1p3f);

  Tensors after = run();

  after["d_W_h"] = times(after["d_W_h"], 0x1p7f);
  after["d_W_x"] = times(after["d_W_x"], 0x1p-5f);
  after["d_x"] = times(after["d_x"], 1.0f);
  for (const std::string& name : kAll) EXPECT_TRUE(same_bits(after.at(name), before_.at(name))) << name;
}

// An epsilon that does not grow with the variance is seen, though by little.
TEST_P(Invariance, ToScaleIsBrokenByAFixedEpsilon) {
  use(Normalization::layer, 1e-2f);
  scale("W_h", 10.0f);

  const Tensors after = run();

  EXPECT_FALSE(all_close(after.at("output"), before_.at("output"), kUnchanged));
  EXPECT_TRUE(all_close(after.at("output"), before_.at("output"), 0.05));
}

// --- what they do see -------------------------------------------------------------------------------------

TEST_P(Invariance, NotToScaleOfOneRow) {
  const std::size_t width = static_cast<std::size_t>(sizes_.hidden);
  for (std::size_t k = 0; k < width; ++k) in_["W_h"][3 * width + k] *= 20;

  expect_changed(before_, run());
}

TEST_P(Invariance, NotToSign) {
  scale("W_h", -1.0f);

  expect_changed(before_, run());
}

TEST_P(Invariance, NotToCentreOfInputs) {
  for (float& value : in_["x"]) value += 1;

  expect_changed(before_, run());
}

// A last input that is always 1 carries a bias inside the normalized sum, as some implementations have it:
// scaling the weights alone is then seen, scaling that bias with them is not.
TEST_P(Invariance, NotWhereABiasIsInsideTheNormalizedSum) {
  const std::size_t I = static_cast<std::size_t>(sizes_.inputs);
  for (std::size_t i = I - 1; i < in_["x"].size(); i += I) in_["x"][i] = 1;
  before_ = run();

  scale("W_x", 3.0f);
  expect_unchanged(before_, run());
  for (std::size_t i = I - 1; i < in_["W_x"].size(); i += I) in_["W_x"][i] /= 3;
  expect_changed(before_, run());
}

TEST_P(Invariance, NotOfThePlainCell) {
  use(Normalization::none, 0);
  scale("W_h", 0.3f);
  expect_changed(before_, run());

  use(Normalization::none, 0);
  add_row("W_x");
  expect_changed(before_, run());
}

// --- gradients --------------------------------------------------------------------------------------------

TEST_P(Invariance, GradientShrinksAsItsMatrixGrows) {
  constexpr float kFactor = 2.7f;
  scale("W_h", kFactor);

  Tensors after = run();

  after["d_W_h"] = times(after["d_W_h"], kFactor);
  for (const std::string& name : kAll)
    EXPECT_TRUE(all_close(after.at(name), before_.at(name), kUnchanged)) << name;
}

TEST_P(Invariance, GradientsAreOrthogonalToTheirMatrices) {
  for (const std::string name : {"W_x", "W_h"}) {
    const std::vector<float>&W = in_[name], &dW = before_["d_" + name];
    EXPECT_NEAR(dot(W, dW) / std::sqrt(dot(W, W) * dot(dW, dW)), 0, 1e-6) << name;
  }
}

// So a plain step of gradient descent lengthens a matrix by exactly its own length, at right angles.
TEST_P(Invariance, AStepOfDescentLengthensTheMatrix) {
  constexpr float kRate = 0.5f;
  const auto backend = make_cpu_backend(1);
  std::vector<float>& W = in_["W_h"];
  const std::vector<float>& dW = before_["d_W_h"];
  const double length = dot(W, W);
  std::vector<float> velocity(W.size());

  backend->sgd(kRate, 0, 0, 1, dW, velocity, W);

  const double step = double{kRate} * double{kRate} * dot(dW, dW);
  EXPECT_NEAR((dot(W, W) - length) / step, 1, 1e-3);
}

void expect_centred_columns(const Tensors& gradients, const std::string& name, std::size_t rows) {
  const std::vector<float>& dW = gradients.at(name);
  const std::size_t width = dW.size() / rows;
  std::vector<double> sums(width);
  for (std::size_t i = 0; i < dW.size(); ++i) sums[i % width] += double{dW[i]};
  EXPECT_TRUE(all_close(sums, std::vector<double>(width), kUnchanged, scale_of(dW))) << name;
}

TEST_P(Invariance, GradientColumnsSumToZeroWithAnyEpsilon) {
  for (const float epsilon : {0.0f, 1e-5f, 0.5f}) {
    SCOPED_TRACE(epsilon);
    use(Normalization::layer, epsilon);
    expect_centred_columns(before_, "d_W_x", 4 * static_cast<std::size_t>(sizes_.hidden));
    expect_centred_columns(before_, "d_W_h", 4 * static_cast<std::size_t>(sizes_.hidden));
  }
}

/// One lane, one time step: sums over cases drop out of the identities.
class InvarianceOfOneCase : public Invariance {
 protected:
  InvarianceOfOneCase()
      : Invariance({.time_steps = 1, .groups = 1, .rows = 1, .blocks = 8, .inputs = 16, .hidden = 32}, 0.1f) {
  }

  /// Biased variance of W v.
  double variance(const std::string& matrix, const std::vector<float>& v) const {
    std::vector<double> a;
    const std::vector<float>& W = in_.at(matrix);
    for (std::size_t row = 0; row < W.size() / v.size(); ++row) {
      const auto begin = W.begin() + static_cast<std::ptrdiff_t>(row * v.size());
      a.push_back(dot({begin, begin + static_cast<std::ptrdiff_t>(v.size())}, v));
    }
    const double width = static_cast<double>(a.size());
    const double mean = std::accumulate(a.begin(), a.end(), 0.0) / width;
    return std::transform_reduce(a.begin(), a.end(), 0.0, std::plus<>(),
                                 [&](double value) { return (value - mean) * (value - mean) / width; });
  }
};

// sum_j a_j da_j = epsilon / (variance + epsilon) * sum_j n_j dn_j, so what epsilon leaves of the gradient
// along W is known exactly: epsilon is inside the root.
TEST_P(InvarianceOfOneCase, EpsilonsShareOfTheGradientAlongTheMatrix) {
  const auto expect = [&](const std::string& side, const std::vector<float>& operand) {
    const double v = variance("W_" + side, operand);
    const double along = dot(in_["W_" + side], before_["d_W_" + side]);
    const double share = dot(in_["gain_" + side], before_["d_gain_" + side]);
    const double epsilon = 0.1f;
    EXPECT_NEAR(along / share, epsilon / (v + epsilon), 1e-4) << side;
  };

  expect("x", in_["x"]);
  expect("h", in_["h_first"]);
}

const auto kName = [](const auto& exchange) {
  return exchange.param == Exchange::sharded ? "Sharded"
         : exchange.param == Exchange::cell  ? "Cell"
                                             : "Replicated";
};
const auto kExchanges = ::testing::Values(Exchange::sharded, Exchange::cell, Exchange::replicated);
INSTANTIATE_TEST_SUITE_P(LnLstm, Invariance, kExchanges, kName);
INSTANTIATE_TEST_SUITE_P(LnLstm, InvarianceOfOneCase, kExchanges, kName);

}  // namespace
}  // namespace lamina::test
