// The recurrence takes no memory once it has run: not in its time loop, not from one sequence to the next.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cpu/recurrence.h"
#include "tests/support/random_values.h"

namespace {
std::atomic<int> allocations{0};
}

[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace lamina {
namespace {

constexpr int kRows = 3, kHidden = 40, kSteps = 5, kBlocks = 8;

struct Case {
  Normalization normalization;
  Exchange exchange;
  int threads;
  int table_rows = 0;
  Precision precision = Precision::f32;
};

class Memory : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Recurrence> make_layer(int table_rows) const {
    return make_cpu_recurrence({.inputs = kHidden,
                                .hidden = kHidden,
                                .max_time_steps = kSteps,
                                .tiling = {Share::of(2, 0, 1), Share::of(kBlocks, 0, 1), kRows},
                                .normalization = GetParam().normalization,
                                .exchange = GetParam().exchange,
                                .precision = GetParam().precision,
                                .table_rows = table_rows},
                               *axis_, GetParam().threads);
  }

  const std::unique_ptr<Communicator> axis_ = make_self_communicator();
};

TEST_P(Memory, IsTakenByTheFirstSequenceOnly) {
  const auto recurrence = make_layer(GetParam().table_rows), above = make_layer(0);
  const auto wavefront = make_cpu_wavefront({recurrence.get(), above.get()}, *axis_);
  const bool normalized = GetParam().normalization == Normalization::layer;
  const std::size_t gates = 4 * kHidden, units = normalized ? kHidden : 0, gains = 4 * units;
  const auto values = [](std::size_t size) { return test::random_values("values", size); };
  const std::vector<float> W = values(gates * kHidden), bias = values(gates), gain = values(gains),
                           of_c = values(units);
  std::vector<float> d_W_x = W, d_W_h = W, d_bias = bias, d_gain_x = gain, d_gain_h = gain, d_gain_c = of_c,
                     d_bias_c = of_c;
  std::vector<float> x = values(2 * kSteps * kRows * kHidden), d_output = x, output = x, d_x = x;
  std::vector<float> h = values(2 * kRows * kHidden), c = h, h_above = h, c_above = h;
  std::vector<float> output_above = output, d_between = output;
  const int table_rows = GetParam().table_rows;
  const std::vector<float> table = values(static_cast<std::size_t>(table_rows) * kHidden);
  std::vector<float> d_table = table;
  const auto tokens = test::random_integers("tokens", table_rows > 0 ? 2 * kSteps * kRows : 0, 0,
                                            std::max(0, table_rows - 1));
  if (table_rows > 0)
    for (std::vector<float>* dense : {&x, &d_x}) dense->clear();
  const auto step = [&] {
    recurrence->set_parameters({W, W, gain, gain, bias, of_c, of_c, table});
    recurrence->forward({kSteps, x, h, c, {}, output, h, c, tokens});
    recurrence->backward(
        {d_output, d_x, {d_W_x, d_W_h, d_gain_x, d_gain_h, d_bias, d_gain_c, d_bias_c, d_table}});
  };
  const auto step_of_both = [&] {
    above->set_parameters({W, W, gain, gain, bias, of_c, of_c});
    wavefront->forward(std::array<Wavefront::Forward, 2>{
        {{{kSteps, x, h, c, {}, output, h, c, tokens}},
         {{kSteps, output, h_above, c_above, {}, output_above, h_above, c_above}}}});
    const LstmParameters<float> d_above{d_W_x, d_W_h, d_gain_x, d_gain_h, d_bias, d_gain_c, d_bias_c};
    LstmParameters<float> d = d_above;
    d.table = d_table;
    wavefront->backward(
        std::array<Wavefront::Backward, 2>{{{{d_between, d_x, d}}, {{d_output, d_between, d_above}}}},
        [](std::size_t) {});
  };
  const auto taken_again_by = [](const auto& work) {
    work();
    const int before = allocations;
    work();
    return allocations - before;
  };

  EXPECT_EQ(taken_again_by(step), 0);
  EXPECT_EQ(taken_again_by(step_of_both), 0);
}

INSTANTIATE_TEST_SUITE_P(Cells, Memory,
                         testing::Values(Case{Normalization::layer, Exchange::sharded, 1},
                                         Case{Normalization::layer, Exchange::sharded, 2},
                                         Case{Normalization::layer, Exchange::cell, 1},
                                         Case{Normalization::layer, Exchange::cell, 2},
                                         Case{Normalization::layer, Exchange::replicated, 1},
                                         Case{Normalization::none, Exchange::sharded, 1},
                                         Case{Normalization::layer, Exchange::sharded, 1, 7},
                                         Case{Normalization::layer, Exchange::replicated, 2, 7},
                                         Case{Normalization::none, Exchange::sharded, 1, 7},

                                         Case{Normalization::layer, Exchange::sharded, 2, 0, Precision::bf16},
                                         Case{Normalization::layer, Exchange::cell, 2, 7, Precision::bf16}));

}  // namespace
}  // namespace lamina
