// Layers and arguments that do not fit on each other; what a wavefront computes:
// tests/model/wavefront_test.cpp.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/recurrence.h"
#include "runtime/error.h"

namespace lamina {
namespace {

constexpr int kRows = 3, kHidden = 16, kSteps = 4, kBlocks = 8;

class CpuWavefrontTest : public testing::Test {
 protected:
  std::unique_ptr<Recurrence> make_layer(int inputs, Exchange exchange = Exchange::sharded) const {
    auto layer = make_cpu_recurrence({.inputs = inputs,
                                      .hidden = kHidden,
                                      .max_time_steps = kSteps,
                                      .tiling = {Share::of(1, 0, 1), Share::of(kBlocks, 0, 1), kRows},
                                      .exchange = exchange},
                                     *self_, 1);
    const std::vector<float> W_x(4 * kHidden * static_cast<std::size_t>(inputs)), W_h(4 * kHidden * kHidden),
        of_gates(4 * kHidden), of_units(kHidden);
    layer->set_parameters({W_x, W_h, of_gates, of_gates, of_gates, of_units, of_units});
    return layer;
  }
  RecurrenceForward on(std::span<const float> input, std::span<float> output, int time_steps = kSteps) {
    return {time_steps, input, state_, state_, {}, output, state_, state_};
  }

  std::unique_ptr<Communicator> self_ = make_self_communicator();
  std::unique_ptr<Recurrence> below_ = make_layer(8), above_ = make_layer(kHidden);
  std::vector<float> input_ = std::vector<float>(kSteps * kRows * 8),
                     output_ = std::vector<float>(kSteps * kRows * kHidden), top_ = output_,
                     state_ = std::vector<float>(kRows * kHidden);
};

TEST_F(CpuWavefrontTest, RefusesLayersThatDoNotFit) {
  const auto too_narrow = make_layer(8), replicated = make_layer(kHidden, Exchange::replicated);

  EXPECT_THROW(make_cpu_wavefront({}, *self_), InternalError);
  EXPECT_THROW(make_cpu_wavefront({below_.get(), too_narrow.get()}, *self_), InternalError);
  EXPECT_THROW(make_cpu_wavefront({below_.get(), replicated.get()}, *self_), InternalError);
  EXPECT_NO_THROW(make_cpu_wavefront({below_.get(), above_.get()}, *self_));
}

TEST_F(CpuWavefrontTest, RefusesInputsThatAreNotTheOutputBelow) {
  const auto wavefront = make_cpu_wavefront({below_.get(), above_.get()}, *self_);
  using Both = std::array<Wavefront::Forward, 2>;

  EXPECT_THROW(wavefront->forward(Both{{{on(input_, output_)}, {on(top_, top_)}}}), InternalError);
  const auto of_one_step = [](std::vector<float>& all) { return std::span(all).first(kRows * kHidden); };
  EXPECT_THROW(
      wavefront->forward(Both{{{on(input_, output_)}, {on(of_one_step(output_), of_one_step(top_), 1)}}}),
      InternalError);
  EXPECT_THROW(wavefront->forward(std::array<Wavefront::Forward, 1>{{{on(input_, output_)}}}), InternalError);
  EXPECT_NO_THROW(wavefront->forward(Both{{{on(input_, output_)}, {on(output_, top_)}}}));
}

TEST_F(CpuWavefrontTest, RefusesGradientsThatDoNotMeet) {
  const auto wavefront = make_cpu_wavefront({below_.get(), above_.get()}, *self_);
  std::vector<float> d_top = top_, d_between = top_, elsewhere = top_, d_W_x(4 * kHidden * 8),
                     d_W(4 * kHidden * kHidden), d_gates(4 * kHidden), d_units(kHidden);
  const LstmParameters<float> d_below{d_W_x, d_W, d_gates, d_gates, d_gates, d_units, d_units},
      d_above{d_W, d_W, d_gates, d_gates, d_gates, d_units, d_units};
  const auto backward_into = [&](std::vector<float>& d_input) {
    wavefront->forward(std::array<Wavefront::Forward, 2>{{{on(input_, output_)}, {on(output_, top_)}}});
    wavefront->backward(
        std::array<Wavefront::Backward, 2>{{{{d_between, {}, d_below}}, {{d_top, d_input, d_above}}}},
        [](std::size_t) {});
  };

  EXPECT_THROW(backward_into(elsewhere), InternalError);
  EXPECT_NO_THROW(backward_into(d_between));
}

}  // namespace
}  // namespace lamina
