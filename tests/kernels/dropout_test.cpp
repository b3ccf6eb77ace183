#include "kernels/cpu/dropout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "runtime/error.h"
#include "tests/reference/language_model.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::dropout {
namespace {

using reference::SequenceLayout;
using test::same_bits;
using Floats = std::vector<float>;

const RandomStream kStream(5, "dropout/lstm0");

struct Case {
  int groups = 4, rows = 3, blocks = 8, time_steps = 5, width = 24;
  float probability = 0.25f;
  bool variational = true;
  std::uint64_t step = 9;

  /// Of rank (data_rank, model_rank) in a grid of data x model ranks.
  DropoutMask mask(int data = 1, int data_rank = 0, int model = 1, int model_rank = 0) const {
    return {.stream = &kStream,
            .step = step,
            .probability = probability,
            .variational = variational,
            .time_steps = time_steps,
            .width = width,
            .tiling = {Share::of(groups, data_rank, data), Share::of(blocks, model_rank, model), rows}};
  }
};

SequenceLayout layout_of(const DropoutMask& mask) { return {mask.tiling, mask.time_steps, mask.width}; }

// The factors [T, B, H] that the forward and the backward pass apply, on a grid of data x model ranks.
Floats forward_factors(const Case& given, int data = 1, int threads = 1) {
  Floats global(layout_of(given.mask()).global_size());
  for (int rank = 0; rank < data; ++rank) {
    const DropoutMask mask = given.mask(data, rank);
    Floats ones(layout_of(mask).full_size(), 1.0f);
    forward(threads, mask, ones, ones);
    layout_of(mask).from_full(std::span<const float>(ones), global);
  }
  return global;
}

Floats backward_factors(const Case& given, int data = 1, int model = 1, int threads = 1) {
  Floats global(layout_of(given.mask()).global_size());
  for (int rank = 0; rank < data * model; ++rank) {
    const DropoutMask mask = given.mask(data, rank / model, model, rank % model);
    Floats ones(layout_of(mask).blocked_size(), 1.0f);
    backward(threads, mask, ones);
    layout_of(mask).from_blocked(std::span<const float>(ones), global);
  }
  return global;
}

Floats expected_factors(const Case& given) {
  return test::converted<float>(reference::dropout_factors(
      kStream, given.step, static_cast<double>(given.probability), given.variational, given.time_steps,
      given.groups * given.rows, given.width));
}

const std::vector<Case> kCases = {
    {},
    {.variational = false},
    {.groups = 1, .rows = 1, .blocks = 1, .time_steps = 1, .width = 1},
    // Rows that begin in the middle of a block of four draws.
    {.groups = 2, .rows = 1, .blocks = 2, .time_steps = 5, .width = 10, .probability = 0.5f},
    {.groups = 2,
     .rows = 1,
     .blocks = 2,
     .time_steps = 5,
     .width = 10,
     .probability = 0.5f,
     .variational = false},
};

TEST(Dropout, FollowsTheDefinition) {
  for (const Case& given : kCases) {
    EXPECT_TRUE(test::all_close(forward_factors(given), expected_factors(given), 1e-7));
    EXPECT_TRUE(test::all_close(backward_factors(given), expected_factors(given), 1e-7));
  }
}

TEST(Dropout, ForwardAndBackwardAgreeOnEveryGrid) {
  for (const bool variational : {true, false}) {
    const Case given{.variational = variational};
    const Floats expected = forward_factors(given);

    EXPECT_TRUE(same_bits(forward_factors(given, 4), expected));
    for (const auto& [data, model] : {std::pair(1, 8), {2, 4}, {4, 1}})
      EXPECT_TRUE(same_bits(backward_factors(given, data, model), expected)) << data << " x " << model;
  }
}

TEST(Dropout, DoesNotDependOnThreads) {
  const Case given;

  for (const int threads : {2, 4}) {
    EXPECT_TRUE(same_bits(forward_factors(given, 1, threads), forward_factors(given)));
    EXPECT_TRUE(same_bits(backward_factors(given, 1, 1, threads), forward_factors(given)));
  }
}

// Step by step; backward over the blocks of one rank of two, or over all.
TEST(Dropout, AtSingleTimeStepsIsTheSame) {
  for (const bool variational : {true, false}) {
    const Case given{.variational = variational};
    const DropoutMask whole = given.mask(), half = given.mask(1, 0, 2, 1);
    Floats full(layout_of(whole).full_size(), 1.0f), blocked(layout_of(half).blocked_size(), 1.0f);
    Floats all_blocks(layout_of(whole).blocked_size(), 1.0f);
    const Floats ones = full;
    Floats by_steps(full.size(), NAN), blocked_by_steps = blocked, all_by_steps = all_blocks;
    forward(1, whole, full, full);
    backward(1, half, blocked);
    backward(1, whole, all_blocks);

    for (int t = 0; t < given.time_steps; ++t) {
      forward_at(2, half, t, ones, by_steps);
      backward_at(2, half, t, half.tiling.blocks, blocked_by_steps);
      backward_at(2, half, t, whole.tiling.blocks, all_by_steps);
    }

    EXPECT_TRUE(same_bits(by_steps, full));
    EXPECT_TRUE(same_bits(blocked_by_steps, blocked));
    EXPECT_TRUE(same_bits(all_by_steps, all_blocks));
  }
}

TEST(Dropout, MultipliesWhatComesIn) {
  const Case given{.variational = false};
  const DropoutMask mask = given.mask();
  const Floats x = test::random_values("x", layout_of(mask).full_size());
  Floats out(x.size()), factors(x.size(), 1.0f);

  forward(1, mask, x, out);
  forward(1, mask, factors, factors);

  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(out[i], x[i] * factors[i]);
}

TEST(Dropout, KeepsItsShareAndTheMean) {
  for (const float probability : {0.1f, 0.5f, 0.9f}) {
    const Case given{.groups = 8,
                     .rows = 8,
                     .time_steps = 10,
                     .width = 64,
                     .probability = probability,
                     .variational = false};

    const Floats factors = forward_factors(given);

    const auto count = static_cast<double>(factors.size());
    const double kept = count - static_cast<double>(std::ranges::count(factors, 0.0f));
    const double mean = std::accumulate(factors.begin(), factors.end(), 0.0) / count;
    EXPECT_NEAR(kept / count, 1 - static_cast<double>(probability), 0.01);
    EXPECT_NEAR(mean, 1, 0.06);
  }
}

TEST(Dropout, VariationalMasksAreTheSameAtAllTimesButNotForAllLanes) {
  const Case given{.groups = 2, .rows = 1, .time_steps = 3, .width = 64};

  const Floats factors = forward_factors(given);  // [T, B, H]

  const auto at = [&](std::ptrdiff_t t, std::ptrdiff_t lane) {
    const auto begin = factors.begin() + (t * 2 + lane) * 64;
    return Floats(begin, begin + 64);
  };
  EXPECT_EQ(at(0, 0), at(2, 0));
  EXPECT_EQ(at(0, 1), at(2, 1));
  EXPECT_NE(at(0, 0), at(0, 1));
}

TEST(Dropout, DrawsAnewAtEveryStep) { EXPECT_NE(forward_factors({.step = 1}), forward_factors({.step = 2})); }

TEST(Dropout, OfProbabilityZeroChangesNothing) {
  const Floats factors = forward_factors({.probability = 0});

  EXPECT_EQ(factors, Floats(factors.size(), 1.0f));
}

TEST(Dropout, RefusesWhatDoesNotFit) {
  const DropoutMask mask = Case{}.mask(), certain = Case{.probability = 1}.mask();
  Floats right(layout_of(mask).full_size()), wrong(right.size() - 1);

  EXPECT_THROW(forward(1, mask, wrong, wrong), InternalError);
  EXPECT_THROW(forward(1, mask, right, wrong), InternalError);
  EXPECT_THROW(backward(1, mask, wrong), InternalError);
  EXPECT_THROW(forward(1, certain, right, right), InternalError);
}

}  // namespace
}  // namespace lamina::dropout
