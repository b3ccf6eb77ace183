#include "launch/commands/benchmark/quantiles.h"

#include <gtest/gtest.h>

#include "runtime/error.h"

namespace lamina {
namespace {

TEST(Quantiles, LieBetweenNeighbours) {
  const std::vector<double> values{5, 1, 4, 2};

  EXPECT_EQ(least(values), 1);
  EXPECT_EQ(largest(values), 5);
  EXPECT_EQ(median(values), 3);
  EXPECT_EQ(quantile(values, 1.0 / 3), 2);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 4.7);
}

TEST(Quantiles, OfOneValueAreThatValue) {
  for (const double q : {0.0, 0.3, 1.0}) EXPECT_EQ(quantile({7}, q), 7);
}

TEST(Quantiles, OfNothingAreOurMistake) {
  EXPECT_THROW(median({}), InternalError);
  EXPECT_THROW(quantile({1, 2}, 1.5), InternalError);
}

TEST(Quantiles, SummaryKeepsTheOrderOfMeasuring) {
  const auto summary = summary_of({0.003, 0.001, 0.002}, 1e3);

  EXPECT_EQ(summary.dump(), R"({"median":2.0,"min":1.0,"max":3.0,"repetitions":[3.0,1.0,2.0]})");
}

}  // namespace
}  // namespace lamina
