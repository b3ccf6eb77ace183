// What several hand in to one exchange comes to each as if it had exchanged alone.
#include "kernels/cpu/exchange_round.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using test::random_values;
using test::same_bits;
using Values = std::vector<float>;

constexpr int kRanks = 4;

/// Sizes of what takes part; the second travels in several pieces, and the others begin and end within one.
const std::vector<std::size_t> kSizes = {3, 200'000, 1, 64};

Values values_of(int rank, std::size_t size) {
  return random_values("rank " + std::to_string(rank) + " of " + std::to_string(size), size);
}

/// check(rank, axis) on each rank; failures are of googletest, which may be called from any thread.
void on_ranks(const std::function<void(int rank, Communicator& axis)>& check) {
  for (const int ranks : {1, kRanks})
    run_on_threads(ranks, [&](Communicator& axis) { check(axis.rank(), axis); });
}

TEST(ExchangeRound, BringsTogetherWhatEachSent) {
  on_ranks([](int rank, Communicator& axis) {
    std::vector<Values> sent, come;
    for (const std::size_t size : kSizes) {
      sent.push_back(values_of(rank, size));
      come.emplace_back(size * static_cast<std::size_t>(axis.size()), NAN);
    }
    ExchangeRound round(axis);
    for (std::size_t i = 0; i < sent.size(); ++i)
      round.gather(sent[i], [&, i](int from, std::size_t first, std::span<const float> values) {
        std::ranges::copy(values, &come[i][static_cast<std::size_t>(from) * kSizes[i] + first]);
      });

    round.exchange();

    for (std::size_t i = 0; i < sent.size(); ++i)
      for (int from = 0; from < axis.size(); ++from)
        EXPECT_TRUE(same_bits(Values(&come[i][static_cast<std::size_t>(from) * kSizes[i]],
                                     &come[i][static_cast<std::size_t>(from) * kSizes[i]] + kSizes[i]),
                              values_of(from, kSizes[i])));
  });
}

TEST(ExchangeRound, AddsUpEachOnesParts) {
  on_ranks([](int rank, Communicator& axis) {
    std::vector<Values> in, together, alone;
    for (const std::size_t size : kSizes) {
      in.push_back(values_of(rank, size * static_cast<std::size_t>(axis.size())));
      together.emplace_back(size, NAN);
      alone.emplace_back(size, NAN);
      axis.reduce_scatter(std::span<const float>(in.back()), std::span(alone.back()));
    }
    ExchangeRound round(axis);
    for (std::size_t i = 0; i < in.size(); ++i) round.sum_parts(in[i], together[i]);

    round.exchange();

    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_TRUE(same_bits(together[i], alone[i]));
  });
}

TEST(ExchangeRound, AddsUpEachOnesValues) {
  on_ranks([](int rank, Communicator& axis) {
    std::vector<Values> together, alone;
    for (const std::size_t size : kSizes) {
      together.push_back(values_of(rank, size));
      alone.push_back(together.back());
      axis.all_reduce(std::span(alone.back()));
    }
    ExchangeRound round(axis);
    for (Values& values : together) round.sum(values);

    round.exchange();

    for (std::size_t i = 0; i < together.size(); ++i) EXPECT_TRUE(same_bits(together[i], alone[i]));
  });
}

TEST(ExchangeRound, RefusesASumWithoutAPartForEachRank) {
  on_ranks([](int, Communicator& axis) {
    ExchangeRound round(axis);
    Values in(static_cast<std::size_t>(axis.size()) * 3 + 1), out(3);

    EXPECT_THROW(round.sum_parts(in, out), InternalError);
  });
}

TEST(ExchangeRound, IsOneCollectiveOfEachKindAndThenForgetsWhatItHad) {
  on_ranks([](int, Communicator& axis) {
    const std::int64_t before = axis.time_spent().calls;
    const auto calls = [&] { return axis.time_spent().calls - before; };
    const int expected = axis.size() > 1;
    Values values(4, 1.0f), parts(4 * static_cast<std::size_t>(axis.size()), 1.0f), out(4);
    int came = 0;
    const auto take = [&](int, std::size_t, std::span<const float>) { ++came; };
    ExchangeRound round(axis);

    round.exchange();
    EXPECT_EQ(calls(), 0);
    for (int i = 0; i < 3; ++i) round.gather(values, take);
    round.exchange();
    EXPECT_EQ(calls(), expected);
    EXPECT_EQ(came, 3 * axis.size());
    round.sum_parts(parts, out);
    round.sum_parts(parts, values);
    round.sum(out);
    round.exchange();
    EXPECT_EQ(calls(), 3 * expected);
    round.exchange();
    EXPECT_EQ(calls(), 3 * expected);
    EXPECT_EQ(came, 3 * axis.size());
  });
}

}  // namespace
}  // namespace lamina
