// What a caller of the CPU recurrence may rely on beyond what every layer does
// (tests/model/layer_conformance_test.cpp): schedules with equal bits, states updated in place, gradients
// that may be left out, NaN that stays one.
#include "kernels/cpu/recurrence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using reference::SequenceLayout;
using test::random_values;
using test::same_bits;

using Values = std::vector<float>;
using Tensors = std::map<std::string, Values>;

constexpr int kGroups = 2, kRows = 3, kBlocks = 8, kHidden = 40, kSteps = 6, kMaxSteps = 9;

struct Setting {
  Normalization normalization = Normalization::layer;
  Exchange exchange = Exchange::sharded;
  int ranks = 1;
  int threads = 1;
  int inputs = 24;
  int steps = kSteps;
  bool wants_d_input = true;
  Precision precision = Precision::f32;
};

std::size_t size(int n) { return static_cast<std::size_t>(n); }

/// Shapes of the parameters by name, as [outer, split, inner] in blocks.
std::map<std::string, BlockedShape> parameter_shapes(const Setting& s) {
  std::map<std::string, BlockedShape> shapes = {{"W_x", {4, kHidden, s.inputs, kBlocks}},
                                                {"W_h", {4, kHidden, kHidden, kBlocks}},
                                                {"bias", {4, kHidden, 1, kBlocks}}};
  if (s.normalization == Normalization::none) return shapes;
  for (const char* name : {"gain_x", "gain_h"}) shapes[name] = {4, kHidden, 1, kBlocks};
  for (const char* name : {"gain_c", "bias_c"}) shapes[name] = {1, kHidden, 1, kBlocks};
  return shapes;
}

template <class T, class Map>
LstmParameters<T> spans_of(Map& values) {
  const auto of = [&](const char* name) {
    return values.contains(name) ? std::span<T>(values.at(name)) : std::span<T>();
  };
  return {of("W_x"), of("W_h"), of("gain_x"), of("gain_h"), of("bias"), of("gain_c"), of("bias_c")};
}

/// One rank's recurrence, with everything that it reads and writes.
class OnRank {
 public:
  OnRank(const Setting& s, Communicator& axis)
      : setting_(s),
        tiling_{Share::of(kGroups, 0, 1), Share::of(kBlocks, axis.rank(), axis.size()), kRows},
        recurrence_(make_cpu_recurrence(
            {s.inputs, kHidden, kMaxSteps, tiling_, s.normalization, s.exchange, 1e-5f, s.precision}, axis,
            s.threads)) {
    for (const auto& [name, shape] : parameter_shapes(s)) {
      const Values global = random_values(name, size(static_cast<int>(shape.size())), -0.5, 0.5);
      parameters_[name] = reference::to_blocks<float>(global, shape, tiling_.blocks);
      gradients_[name].assign(parameters_[name].size(), NAN);
    }
    recurrence_->set_parameters(spans_of<const float>(parameters_));
    input_ = full(s.inputs).to_full<float>(random_values("x", full(s.inputs).global_size()));
    h_ = at(1).to_full<float>(random_values("h", at(1).global_size()));
    c_ = at(1).to_blocked<float>(random_values("c", at(1).global_size()));
    output_.resize(full(kHidden).full_size());
  }

  Values& input() { return input_; }
  Values& h() { return h_; }
  Values& c() { return c_; }
  const Values& output() const { return output_; }
  const Tensors& gradients() const { return gradients_; }

  /// From the state to the state, through copies.
  void forward() {
    const Values h_first = h_, c_first = c_;
    std::ranges::fill(h_, NAN);
    std::ranges::fill(c_, NAN);
    forward(h_first, c_first, h_, c_);
  }
  void forward(std::span<const float> h_first, std::span<const float> c_first, std::span<float> h_last,
               std::span<float> c_last) {
    recurrence_->forward({.time_steps = setting_.steps,
                          .input = input_,
                          .h_first = h_first,
                          .c_first = c_first,
                          .lengths = {},
                          .output = output_,
                          .h_last = h_last,
                          .c_last = c_last});
  }
  void backward() {
    const Values d_output =
        full(kHidden).to_blocked<float>(random_values("d_output", full(kHidden).global_size()));
    if (setting_.wants_d_input) d_input_.assign(full(setting_.inputs).blocked_size(), NAN);
    recurrence_->backward(
        {.d_output = d_output, .d_input = d_input_, .d_parameters = spans_of<float>(gradients_)});
  }

  /// Writes this rank's part of every tensor into the global ones.
  void collect(Tensors& global) const {
    const auto place = [&](const char* name, std::size_t count) -> Values& {
      Values& values = global[name];
      values.resize(count);
      return values;
    };
    full(kHidden).from_full(std::span<const float>(output_), place("output", full(kHidden).global_size()));
    at(1).from_full(std::span<const float>(h_), place("h_last", at(1).global_size()));
    at(1).from_blocked(std::span<const float>(c_), place("c_last", at(1).global_size()));
    if (!d_input_.empty())
      full(setting_.inputs)
          .from_blocked(std::span<const float>(d_input_), place("d_x", full(setting_.inputs).global_size()));
    for (const auto& [name, shape] : parameter_shapes(setting_))
      reference::from_blocks(std::span<const float>(gradients_.at(name)), shape, tiling_.blocks,
                             place(name.c_str(), static_cast<std::size_t>(shape.size())));
  }

 private:
  SequenceLayout full(int width) const { return {tiling_, setting_.steps, width}; }
  SequenceLayout at(int steps) const { return {tiling_, steps, kHidden}; }

  Setting setting_;
  Tiling tiling_;
  std::unique_ptr<Recurrence> recurrence_;
  Tensors parameters_, gradients_;
  Values input_, h_, c_, output_, d_input_;
};

Tensors run(const Setting& s) {
  Tensors global;
  std::mutex mutex;
  run_on_threads(s.ranks, [&](Communicator& axis) {
    OnRank rank(s, axis);
    rank.forward();
    rank.backward();
    const std::lock_guard lock(mutex);
    rank.collect(global);
  });
  return global;
}

void expect_same_bits(const Tensors& left, const Tensors& right) {
  for (const auto& [name, values] : left) EXPECT_TRUE(same_bits(values, right.at(name))) << name;
}

class Recurrences : public testing::TestWithParam<std::tuple<Normalization, Precision>> {
 protected:
  static Setting setting() {
    return {.normalization = std::get<0>(GetParam()), .precision = std::get<1>(GetParam())};
  }
};

TEST_P(Recurrences, HaveTheSameBitsInAllSchedulesOnEveryGrid) {
  const Tensors sharded = run(setting());

  for (const Exchange exchange : {Exchange::cell, Exchange::replicated})
    for (const int ranks : {1, 2, 4, 8})
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(std::string(exchange == Exchange::cell ? "cell, " : "replicated, ") +
                     std::to_string(ranks) + " ranks, " + std::to_string(threads) + " threads");
        Setting s = setting();
        s.ranks = ranks;
        s.threads = threads;
        s.exchange = exchange;
        expect_same_bits(sharded, run(s));
      }
}

/// Collectives of a time step: of a pass over kSteps of them less those of a pass over one.
std::int64_t collectives_of_steps(Setting s, void (OnRank::*pass)()) {
  const auto calls_over = [&](int steps) {
    s.steps = steps;
    std::int64_t calls = 0;
    run_on_threads(s.ranks, [&](Communicator& axis) {
      OnRank rank(s, axis);
      if (pass == &OnRank::backward) rank.forward();
      const std::int64_t before = axis.time_spent().calls;
      (rank.*pass)();
      if (axis.rank() == 0) calls = axis.time_spent().calls - before;
    });
    return calls;
  };
  return calls_over(kSteps) - calls_over(1);
}

TEST_P(Recurrences, MakeAsManyExchangesAsTheirScheduleSays) {
  const bool normalized = std::get<0>(GetParam()) == Normalization::layer;
  Setting s = setting();
  s.ranks = 2;
  for (const auto& [exchange, with_statistics] :
       {std::pair{Exchange::sharded, 3}, {Exchange::cell, 2}, {Exchange::replicated, 1}}) {
    s.exchange = exchange;
    const int calls = (kSteps - 1) * (normalized ? with_statistics : 1);

    EXPECT_EQ(collectives_of_steps(s, &OnRank::forward), calls);
    EXPECT_EQ(collectives_of_steps(s, &OnRank::backward), calls);
  }
}

TEST_P(Recurrences, UpdateTheStateInPlace) {
  const auto axis = make_self_communicator();
  OnRank apart(setting(), *axis), in_place(setting(), *axis);

  apart.forward();
  apart.backward();
  in_place.forward(in_place.h(), in_place.c(), in_place.h(), in_place.c());
  in_place.backward();

  EXPECT_TRUE(same_bits(apart.h(), in_place.h()));
  EXPECT_TRUE(same_bits(apart.c(), in_place.c()));
  expect_same_bits(apart.gradients(), in_place.gradients());
}

TEST_P(Recurrences, GoOnWhereAnEarlierPieceEnded) {
  const auto axis = make_self_communicator();
  Setting half = setting();
  half.steps = kSteps / 2;
  OnRank whole(setting(), *axis), pieces(half, *axis);
  const Values input = whole.input();

  whole.forward();
  for (const std::size_t piece : {0, 1}) {
    const std::size_t length = pieces.input().size() / kGroups;
    for (std::size_t d = 0; d < kGroups; ++d)
      std::copy_n(&input[(2 * d + piece) * length], length, &pieces.input()[d * length]);
    pieces.forward();
  }

  EXPECT_TRUE(same_bits(whole.h(), pieces.h()));
  EXPECT_TRUE(same_bits(whole.c(), pieces.c()));
}

TEST_P(Recurrences, NeedNoInputGradient) {
  Setting s = setting();
  s.wants_d_input = false;
  Tensors expected = run(setting());
  expected.erase("d_x");

  expect_same_bits(expected, run(s));
}

TEST_P(Recurrences, TakeInputsThatDoNotDivideIntoBlocks) {
  Setting s = setting();
  s.inputs = 5;
  s.wants_d_input = false;
  const Tensors whole = run(s);
  s.ranks = 4;

  expect_same_bits(whole, run(s));
}

TEST_P(Recurrences, DoNotHideNaN) {
  const auto axis = make_self_communicator();
  OnRank rank(setting(), *axis);
  rank.input()[0] = std::numeric_limits<float>::quiet_NaN();

  rank.forward();
  rank.backward();

  for (std::size_t step = 0; step < kSteps; ++step)
    EXPECT_TRUE(std::isnan(rank.output()[step * kRows * kHidden])) << "step " << step;
  for (const auto& [name, values] : rank.gradients())
    EXPECT_TRUE(std::ranges::any_of(values, [](float v) { return std::isnan(v); })) << name;
}

TEST_P(Recurrences, SurviveGatesFarFromZero) {
  const auto axis = make_self_communicator();
  OnRank rank(setting(), *axis);
  for (float& x : rank.input()) x *= 1e4f;

  rank.forward();
  rank.backward();

  const auto sane = [](float v) { return std::isfinite(v); };
  EXPECT_TRUE(std::ranges::all_of(rank.output(), [](float v) { return std::abs(v) <= 1; }));
  for (const auto& [name, values] : rank.gradients()) EXPECT_TRUE(std::ranges::all_of(values, sane)) << name;
}

TEST_P(Recurrences, RefuseWhatIsOutOfRange) {
  const auto axis = make_self_communicator();
  Setting s = setting();
  s.steps = kMaxSteps + 1;
  OnRank too_long(s, *axis);

  EXPECT_THROW(too_long.forward(), InternalError);
}

INSTANTIATE_TEST_SUITE_P(Cells, Recurrences,
                         testing::Combine(testing::Values(Normalization::none, Normalization::layer),
                                          testing::Values(Precision::f32, Precision::bf16)),
                         [](const auto& cell) {
                           const bool is_bf16 = std::get<1>(cell.param) == Precision::bf16;
                           const bool is_plain = std::get<0>(cell.param) == Normalization::none;
                           return std::string(is_bf16 ? "Bf16" : "") + (is_plain ? "Lstm" : "LnLstm");
                         });

}  // namespace
}  // namespace lamina
