#include "runtime/gradient_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/backends.h"
#include "runtime/tree.h"
#include "tests/support/close.h"

namespace lamina {
namespace {

using test::same_bits;
using ::testing::ElementsAre;
using Floats = std::vector<float>;

constexpr std::size_t kSize = 30;

/// Three parameters of 5, 20 and 5 elements.
ParameterTable make_table(Backend& backend) {
  ParameterTable table;
  const auto add = [&](const char* name, std::int64_t size) {
    table.add(name, {size}, {1, size, 1, 1}, Share::of(1, 0, 1), Initializer::constant(0), false);
  };
  add("a", 5);
  add("b", 20);
  add("c", 5);
  table.allocate(backend, 1);
  return table;
}

/// Of several magnitudes, so that another order of the sum gives other bits.
Floats gradients_of(std::size_t lane_group) {
  std::mt19937 random(static_cast<unsigned>(lane_group) + 1);
  Floats values(kSize);
  for (float& value : values)
    value = std::ldexp(static_cast<float>(random() % 1000) - 500, static_cast<int>(random() % 20));
  return values;
}

Floats sums_of(std::size_t lane_groups) {
  std::vector<Floats> all;
  for (std::size_t group = 0; group < lane_groups; ++group) all.push_back(gradients_of(group));
  Floats sums(kSize);
  for (std::size_t i = 0; i < kSize; ++i)
    sums[i] = tree_sum(lane_groups, [&](std::size_t group) { return all[group][i]; });
  return sums;
}

/// As a backward pass does it: the last parameters first, each range when its gradients are there.
void run_pass(const Floats& gradients, ParameterTable& table, GradientSync& sync) {
  for (const ParameterRange range : {ParameterRange{1, 3}, ParameterRange{0, 1}}) {
    const std::span<float> out = table.gradients(range);
    std::copy_n(gradients.begin() + (out.data() - table.gradients().data()), out.size(), out.begin());
    sync.add(range);
    sync.advance();
  }
}

class GradientSyncTest : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(GradientSyncTest, SumsPassesAndRanksInTheTree) {
  const auto& [ranks, passes] = GetParam();
  run_on_threads(ranks, [&, passes = passes](Communicator& world) {
    const auto backend = make_cpu_backend(1);
    ParameterTable table = make_table(*backend);
    GradientSync sync(passes, table, *backend, world);
    for (int step = 0; step < 2; ++step) {
      for (int pass = 0; pass < passes; ++pass)
        run_pass(gradients_of(static_cast<std::size_t>(world.rank() * passes + pass)), table, sync);
      EXPECT_THAT(sync.non_finite_of_rank(), ElementsAre(false, false, false));
      sync.finish();

      const Floats sums = sums_of(static_cast<std::size_t>(world.size() * passes));
      EXPECT_TRUE(same_bits(Floats(table.gradients().begin(), table.gradients().end()), sums));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(RanksAndPasses, GradientSyncTest,
                         ::testing::Values(std::pair(1, 1), std::pair(1, 4), std::pair(2, 1), std::pair(4, 1),
                                           std::pair(2, 4), std::pair(4, 2)),
                         [](const auto& of) {
                           return std::to_string(of.param.first) + "_ranks_" +
                                  std::to_string(of.param.second) + "_passes";
                         });

TEST(GradientSync, KnowsWhoseGradientWasNotFinite) {
  run_on_threads(2, [](Communicator& world) {
    const auto backend = make_cpu_backend(1);
    ParameterTable table = make_table(*backend);
    GradientSync sync(2, table, *backend, world);
    Floats spoilt = gradients_of(0);
    if (world.rank() == 1) spoilt[7] = std::numeric_limits<float>::infinity();

    run_pass(spoilt, table, sync);
    run_pass(gradients_of(1), table, sync);

    EXPECT_THAT(sync.non_finite_of_rank(), ElementsAre(false, world.rank() == 1, false));
    sync.finish();
    EXPECT_FALSE(std::isfinite(table.gradients()[7]));
  });
}

TEST(GradientSync, WantsAllPassesWhole) {
  const auto backend = make_cpu_backend(1);
  const auto alone = make_self_communicator();
  ParameterTable table = make_table(*backend);
  GradientSync sync(2, table, *backend, *alone);

  run_pass(gradients_of(0), table, sync);
  sync.add({1, 3});
  EXPECT_THROW(sync.finish(), InternalError);
  sync.add({0, 1});
  EXPECT_THROW(sync.add({1, 3}), InternalError);
  sync.finish();
}

}  // namespace
}  // namespace lamina
