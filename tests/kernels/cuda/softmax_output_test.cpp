// ctest: labels=unit,gpu timeout=120
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/support/close.h"
#include "tests/support/device_tensor.h"
#include "tests/support/layer_cases.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

using Floats = std::vector<float>;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

// More blocks than classes, one class, classes that fill the blocks, rows longer than a warp and no multiple,
// columns longer than their slices.
TEST(CudaSoftmaxOutput, AgreesWithTheReferenceAndOnEveryGrid) {
  for (const LayerSizes& sizes : std::vector<LayerSizes>{
           {.hidden = 24, .classes = 63},
           {.time_steps = 1, .groups = 1, .rows = 1, .hidden = 8, .classes = 5},
           {.time_steps = 1, .groups = 2, .rows = 3, .hidden = 8, .classes = 1},
           {.time_steps = 5, .groups = 2, .rows = 1, .hidden = 8, .classes = 64},
           {.time_steps = 13, .groups = 2, .rows = 3, .hidden = 24, .classes = 200},
           {.time_steps = 2, .groups = 1, .rows = 2, .blocks = 2, .hidden = 6, .classes = 1000}}) {
    SCOPED_TRACE(std::to_string(sizes.classes) + " classes");
    const auto layer = make_softmax_case(sizes);
    const Tensors in = layer->inputs();

    const Tensors one = run(*layer, in, {.make_backend = make_cuda_backend});

    for (const auto& [name, expected] : layer->reference(in))
      EXPECT_TRUE(all_close(one.at(name), expected, 1e-5, std::max(1.0, scale_of(expected)))) << name;
    for (const int ranks : {2, 8}) {
      if (ranks > sizes.blocks) continue;
      const Tensors other = run(*layer, in, {.model_ranks = ranks, .make_backend = make_cuda_backend});
      for (const auto& [name, values] : one)
        EXPECT_TRUE(same_bits(other.at(name), values)) << name << " on " << ranks << " ranks";
    }
  }
}

/// A layer on one rank, with its memory.
class Layer {
 public:
  Layer(int max_time_steps, int rows, int classes, int inputs, const Floats& W, const Floats& bias)
      : rows_(rows),
        inputs_(size(inputs)),
        layer_(cuda_->make_softmax_output({.inputs = inputs,
                                           .classes = classes,
                                           .max_time_steps = max_time_steps,
                                           .tiling = {.groups = {}, .blocks = {8, 0, 8}, .rows = rows}},
                                          *self_)),
        W_(*cuda_, W),
        bias_(*cuda_, bias) {
    layer_->set_parameters(W_.view(), bias_.view());
  }

  double loss(const Floats& x, const std::vector<std::int32_t>& targets) {
    std::vector<double> losses(1);
    x_ = DeviceTensor(*cuda_, x);
    layer_->forward(static_cast<int>(targets.size()) / rows_, x_.view(), targets);
    layer_->losses(losses);
    return losses.front();
  }
  struct Gradients {
    Floats d_input, d_W, d_bias;
  };
  Gradients gradients() {
    DeviceTensor d_input(*cuda_, x_.view().size()), d_W(*cuda_, W_.view().size()),
        d_bias(*cuda_, bias_.view().size());
    layer_->backward(1, d_input.view(), d_W.view(), d_bias.view());
    return {d_input.host(), d_W.host(), d_bias.host()};
  }
  Floats logits(int t, int classes) {
    Floats out(size(rows_ * classes));
    layer_->logits(t, out);
    return out;
  }

 private:
  int rows_;
  std::size_t inputs_;
  std::unique_ptr<Backend> cuda_ = make_cuda_backend(0);
  std::unique_ptr<Communicator> self_ = make_self_communicator();
  std::unique_ptr<SoftmaxOutput> layer_;
  DeviceTensor W_, bias_, x_{*cuda_, 0};
};

TEST(CudaSoftmaxOutput, IsSafeWithHugeLogits) {
  Layer layer(1, 2, 5, 8, Floats(40), {1e4f, -1e4f, 0, 0, -1e4f});

  EXPECT_EQ(layer.loss(Floats(16), {0, 1}), 2e4);  // 0 for the first lane
  EXPECT_EQ(layer.gradients().d_bias, (Floats{1, -1, 0, 0, 0}));
}

TEST(CudaSoftmaxOutput, KeepsLogitsApartFromGradients) {
  const Floats bias = random_values("bias", 5);
  Layer layer(1, 2, 5, 8, Floats(40), bias);
  layer.loss(Floats(16), {0, 1});
  layer.gradients();

  const Floats logits = layer.logits(0, 5);

  EXPECT_TRUE(same_bits(Floats(logits.begin(), logits.begin() + 5), bias));
  EXPECT_TRUE(same_bits(Floats(logits.begin() + 5, logits.end()), bias));
}

TEST(CudaSoftmaxOutput, TakesClassesThatCannotBe) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  Layer layer(1, 1, 5, 8, Floats(40), {0, kNever, kNever, 0, kNever});

  EXPECT_EQ(layer.loss(Floats(8), {3}), std::log(2.0));
  EXPECT_EQ(layer.gradients().d_bias, (Floats{0.5f, 0, 0, -0.5f, 0}));
}

TEST(CudaSoftmaxOutput, ShowsALogitThatIsNotANumber) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const std::size_t place : {3, 40}) {
      Floats bias = random_values("bias", 63);
      bias[place] = bad;
      Layer layer(1, 1, 63, 8, random_values("W", 63 * 8), bias);

      EXPECT_FALSE(std::isfinite(layer.loss(random_values("x", 8), {3})));
    }
  Layer of_none(1, 1, 1, 8, Floats(8), {std::numeric_limits<float>::quiet_NaN()});
  EXPECT_TRUE(std::isnan(of_none.loss(Floats(8), {0})));
}

TEST(CudaSoftmaxOutput, WithoutPredictionsHasNoLossAndNoGradient) {
  Layer layer(5, 3, 5, 8, random_values("W", 40), random_values("bias", 5));

  EXPECT_EQ(layer.loss(random_values("x", 5 * 3 * 8), std::vector<std::int32_t>(15, -1)), 0);

  const Layer::Gradients none = layer.gradients();
  EXPECT_EQ(none.d_input, Floats(none.d_input.size()));
  EXPECT_EQ(none.d_W, Floats(none.d_W.size()));
  EXPECT_EQ(none.d_bias, Floats(none.d_bias.size()));
}

// The last chunk of a text has fewer time steps.
TEST(CudaSoftmaxOutput, TakesFewerTimeStepsAfterMore) {
  const Floats W = random_values("W", 63 * 24), bias = random_values("bias", 63);
  const Floats x = random_values("x", 2 * 3 * 24);
  const std::vector<std::int32_t> targets = random_integers("targets", 6, -1, 62);
  Layer used(9, 3, 63, 24, W, bias), fresh(2, 3, 63, 24, W, bias);
  used.loss(random_values("before", 9 * 3 * 24), random_integers("before", 27, -1, 62));
  used.gradients();

  EXPECT_EQ(used.loss(x, targets), fresh.loss(x, targets));

  const Layer::Gradients left = used.gradients(), right = fresh.gradients();
  EXPECT_TRUE(same_bits(left.d_input, right.d_input));
  EXPECT_TRUE(same_bits(left.d_W, right.d_W));
  EXPECT_TRUE(same_bits(left.d_bias, right.d_bias));
}

TEST(CudaSoftmaxOutput, RefusesWhatDoesNotFit) {
  Layer layer(2, 2, 5, 8, Floats(40), Floats(5));

  EXPECT_THROW(layer.loss(Floats(32), {0, 1, -2, 0}), InternalError);
  EXPECT_THROW(layer.loss(Floats(32), {0, 1, 5, 0}), InternalError);
  EXPECT_THROW(layer.loss(Floats(31), {0, 1, 2, 0}), InternalError);
  EXPECT_THROW(layer.loss(Floats(48), {0, 1, 2, 0, 1, 2}), InternalError);
}

}  // namespace
}  // namespace lamina::test
