// Layer-norm statistics merged over blocks and ranks: right, accurate where the mean is far from zero, and
// the same bits on every number of ranks.
#include "kernels/cpu/row_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <vector>

#include "runtime/random.h"
#include "runtime/tiling.h"

namespace lamina {
namespace {

constexpr int kBlocks = 8;
constexpr std::size_t kRows = 3, kWidth = 37;

/// [kBlocks, kRows, kWidth] values with standard deviation near 0.29 around `mean`.
std::vector<float> values_around(float mean) {
  std::vector<float> values(kBlocks * kRows * kWidth);
  const RandomStream stream(5, "values");
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = mean + stream.uniform(0, i) - 0.5f;
  return values;
}

struct Statistics {
  double mean = 0, variance = 0;
};

Statistics exact_of(const std::vector<float>& values, std::size_t row) {
  const double n = kBlocks * kWidth;
  const auto over_row = [&](const auto& add) {
    for (std::size_t k = 0; k < kBlocks; ++k)
      for (std::size_t i = 0; i < kWidth; ++i) add(values[(k * kRows + row) * kWidth + i]);
  };
  Statistics exact;
  over_row([&](double x) { exact.mean += x / n; });
  over_row([&](double x) { exact.variance += std::pow(x - exact.mean, 2) / n; });
  return exact;
}

struct Merged {
  std::vector<float> mean, scale;
  bool operator==(const Merged&) const = default;
};

/// What every rank of `ranks` got.
std::vector<Merged> merged_by(int ranks, const std::vector<float>& values) {
  std::mutex mutex;
  std::vector<Merged> results;
  run_on_threads(ranks, [&](Communicator& axis) {
    const Share blocks = Share::of(kBlocks, axis.rank(), axis.size());
    RowStatistics statistics(blocks.local, axis);
    statistics.start(kRows);
    for (int k = 0; k < blocks.local; ++k) {
      const float* block = &values[static_cast<std::size_t>(blocks.first + k) * kRows * kWidth];
      const auto local = static_cast<std::size_t>(k);
      row_moments(block, kRows, kWidth, statistics.first(local), statistics.second(local));
    }
    Merged merged{std::vector<float>(kRows), std::vector<float>(kRows)};
    statistics.merge_moments(kWidth, 1e-5f, merged.mean.data(), merged.scale.data());
    const std::lock_guard lock(mutex);
    results.push_back(merged);
  });
  return results;
}

TEST(RowStatistics, MomentsAreRightAndTheSameOnEveryNumberOfRanks) {
  for (const float mean : {0.0f, 10.0f, 1000.0f}) {
    const std::vector<float> values = values_around(mean);
    const Merged whole = merged_by(1, values).front();
    for (std::size_t row = 0; row < kRows; ++row) {
      const Statistics exact = exact_of(values, row);
      EXPECT_NEAR(whole.mean[row], exact.mean, 1e-6 * (1 + mean));
      // E[x^2] - mean^2 in floats is off by 23 % at mean 1000.
      EXPECT_NEAR(whole.scale[row], 1 / std::sqrt(exact.variance + 1e-5), 3e-4);
    }
    for (const int ranks : {1, 2, 4, 8})
      for (const Merged& merged : merged_by(ranks, values)) EXPECT_EQ(merged, whole) << ranks << " ranks";
  }
}

TEST(RowStatistics, ConstantRowsHaveTheScaleOfEpsilon) {
  const std::vector<float> threes(kBlocks * kRows * kWidth, 3.0f);

  const Merged merged = merged_by(2, threes).front();

  for (std::size_t row = 0; row < kRows; ++row) {
    EXPECT_EQ(merged.mean[row], 3);
    EXPECT_NEAR(merged.scale[row], 1 / std::sqrt(1e-5), 1e-2);
  }
}

TEST(RowStatistics, SumsAreAddedOverAllBlocksAndDivided) {
  for (const int ranks : {1, 2, 4, 8}) {
    std::mutex mutex;
    int wrong = 0;
    run_on_threads(ranks, [&](Communicator& axis) {
      const Share blocks = Share::of(kBlocks, axis.rank(), axis.size());
      RowStatistics statistics(blocks.local, axis);
      statistics.start(1);
      for (int k = 0; k < blocks.local; ++k) {
        const auto local = static_cast<std::size_t>(k);
        *statistics.first(local) = static_cast<float>(blocks.first + k);         // 0 … 7
        *statistics.second(local) = static_cast<float>(2 * (blocks.first + k));  // 0 … 14
      }
      const RowStatistics::Means means = statistics.merge_sums(16);
      const std::lock_guard lock(mutex);
      wrong += means.first[0] != 28.0f / 16 || means.second[0] != 56.0f / 16;
    });
    EXPECT_EQ(wrong, 0) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace lamina
