// The oneDNN LSTM that Lamina is compared with computes a plain LSTM and all its gradients: nothing is timed
// that does less than it says.
#include "launch/peers/onednn_lstm.h"

#include <gtest/gtest.h>

#include "tests/reference/lstm.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using reference::Vector;
using test::all_close;
using test::converted;
using test::random_values;

constexpr double kTolerance = 1e-5;  // f32 against double, of the tensor's largest magnitude

constexpr int kSteps = 5, kBatch = 6, kInputs = 24, kHidden = 40;
constexpr int kGates[4] = {1, 0, 3, 2};  // place in oneDNN's order i, f, g, o of our f, i, o, g

/// From [inputs, 4, H] to [4H, inputs]; with one input, a bias too.
Vector as_reference(const std::vector<float>& weights, int inputs) {
  Vector out(weights.size());
  for (int i = 0; i < inputs; ++i)
    for (int gate = 0; gate < 4; ++gate)
      for (int u = 0; u < kHidden; ++u)
        out[static_cast<std::size_t>((gate * kHidden + u) * inputs + i)] =
            weights[static_cast<std::size_t>((i * 4 + kGates[gate]) * kHidden + u)];
  return out;
}

struct Problem {
  PeerParameters parameters{random_values<float>("W_x", kInputs * 4 * kHidden, -0.3, 0.3),
                            random_values<float>("W_h", kHidden * 4 * kHidden, -0.3, 0.3),
                            random_values<float>("bias", 4 * kHidden)};
  PeerInput input{
      random_values<float>("x", kSteps* kBatch* kInputs), random_values<float>("h_first", kBatch* kHidden),
      random_values<float>("c_first", kBatch* kHidden), random_values<float>("d_h", kSteps* kBatch* kHidden)};
};

struct Expected {
  reference::LstmShape shape{kInputs, kHidden, Normalization::none, 0};
  reference::LstmParameters parameters = reference::zero_parameters(shape);
  reference::LstmInput input;
  reference::LstmOutput output;
  reference::LstmGradients gradients;

  explicit Expected(const Problem& problem) {
    parameters.W_x = as_reference(problem.parameters.W_x, kInputs);
    parameters.W_h = as_reference(problem.parameters.W_h, kHidden);
    parameters.bias = as_reference(problem.parameters.bias, 1);
    input = {kSteps,
             kBatch,
             converted<double>(problem.input.x),
             converted<double>(problem.input.h_first),
             converted<double>(problem.input.c_first),
             {}};
    output = lstm_forward(shape, parameters, input);
    gradients = lstm_backward(shape, parameters, input, output, converted<double>(problem.input.d_h));
  }
};

void expect_gradients(const PeerGradients& actual, const reference::LstmGradients& expected) {
  EXPECT_TRUE(all_close(as_reference(actual.parameters.W_x, kInputs), expected.parameters.W_x, kTolerance));
  EXPECT_TRUE(all_close(as_reference(actual.parameters.W_h, kHidden), expected.parameters.W_h, kTolerance));
  EXPECT_TRUE(all_close(as_reference(actual.parameters.bias, 1), expected.parameters.bias, kTolerance));
  EXPECT_TRUE(all_close(actual.x, expected.x, kTolerance));
  EXPECT_TRUE(all_close(actual.h_first, expected.h_first, kTolerance));
  EXPECT_TRUE(all_close(actual.c_first, expected.c_first, kTolerance));
}

TEST(OneDnnLstm, ComputesThePlainLstmAndItsGradients) {
  const Problem problem;
  const Expected expected(problem);
  OneDnnLstm lstm({kSteps, kBatch, kInputs, kHidden});
  lstm.set(problem.parameters, problem.input);

  for (int run = 0; run < 2; ++run) {  // the second is not disturbed by the first
    lstm.clear_gradients();
    lstm.forward();
    lstm.backward();
  }

  EXPECT_TRUE(all_close(lstm.h(), expected.output.h, kTolerance));
  expect_gradients(lstm.gradients(), expected.gradients);
}

}  // namespace
}  // namespace lamina
