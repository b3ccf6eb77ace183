// Layer-norm statistics merged over blocks and ranks: right, and accurate where the mean is far from zero.
#include "kernels/cpu/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <vector>

#include "runtime/random.h"
#include "runtime/tiling.h"

namespace lamina {
namespace {

using lstm_rows::Moments;
using lstm_rows::Normalizer;
using lstm_rows::Sums;

constexpr int kBlocks = 8;
constexpr std::size_t kRows = 3, kSize = 37;

/// [kRows, kBlocks, kSize] values with standard deviation near 0.29 around `mean`.
std::vector<float> values_around(float mean) {
  std::vector<float> values(kRows * kBlocks * kSize);
  const RandomStream stream(5, "values");
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = mean + stream.uniform(0, i) - 0.5f;
  return values;
}

struct Exact {
  double mean = 0, variance = 0;
};

Exact exact_of(const std::vector<float>& values, std::size_t row) {
  const double n = kBlocks * kSize;
  const float* x = &values[row * kBlocks * kSize];
  Exact exact;
  for (std::size_t i = 0; i < kBlocks * kSize; ++i) exact.mean += x[i] / n;
  for (std::size_t i = 0; i < kBlocks * kSize; ++i) exact.variance += std::pow(x[i] - exact.mean, 2) / n;
  return exact;
}

/// Normalizers of all rows, computed by `ranks` ranks; of rank 0, and whether all ranks agree bit for bit.
std::pair<std::vector<Normalizer>, bool> normalizers_of(const std::vector<float>& values, int ranks) {
  std::mutex mutex;
  std::vector<std::vector<Normalizer>> results(static_cast<std::size_t>(ranks));
  run_on_threads(ranks, [&](Communicator& axis) {
    const Share blocks = Share::of(kBlocks, axis.rank(), axis.size());
    std::vector<Moments> parts;
    for (std::size_t row = 0; row < kRows; ++row)
      for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
        parts.push_back(
            lstm_rows::moments(&values[(row * kBlocks + static_cast<std::size_t>(k)) * kSize], kSize));
    std::vector<Normalizer> out(kRows);
    Statistics(blocks.local, &axis).normalizers(parts, kSize, 1e-5f, out);
    const std::lock_guard lock(mutex);
    results[static_cast<std::size_t>(axis.rank())] = out;
  });
  bool agree = true;
  for (const auto& result : results)
    for (std::size_t row = 0; row < kRows; ++row)
      agree &= result[row].mean == results[0][row].mean && result[row].scale == results[0][row].scale;
  return {results[0], agree};
}

TEST(Statistics, NormalizersAreRightAndTheSameOnEveryNumberOfRanks) {
  for (const float mean : {0.0f, 10.0f, 1000.0f}) {
    const std::vector<float> values = values_around(mean);
    const auto whole = normalizers_of(values, 1).first;
    for (const int ranks : {1, 2, 4, 8}) {
      const auto [sharded, agree] = normalizers_of(values, ranks);
      EXPECT_TRUE(agree) << ranks << " ranks";
      for (std::size_t row = 0; row < kRows; ++row) {
        const Exact exact = exact_of(values, row);
        EXPECT_NEAR(sharded[row].mean, exact.mean, 1e-6 * (1 + mean));
        // E[x^2] - mean^2 in floats is off by 23 % at mean 1000.
        EXPECT_NEAR(sharded[row].scale, 1 / std::sqrt(exact.variance + 1e-5), 3e-4);
        EXPECT_EQ(sharded[row].mean, whole[row].mean);
        EXPECT_EQ(sharded[row].scale, whole[row].scale);
      }
    }
  }
}

TEST(Statistics, ConstantRowsHaveTheScaleOfEpsilon) {
  const std::vector<Moments> parts(kBlocks, Moments{3, 0});
  std::vector<Normalizer> out(1);

  Statistics(kBlocks, nullptr).normalizers(parts, kSize, 1e-4f, out);

  EXPECT_EQ(out[0].mean, 3);
  EXPECT_NEAR(out[0].scale, 100, 1e-3);
}

TEST(Statistics, MeansAreSumsOverAllBlocksDividedByTheirCount) {
  for (const int ranks : {1, 2, 4, 8}) {
    std::mutex mutex;
    int wrong = 0;
    run_on_threads(ranks, [&](Communicator& axis) {
      const Share blocks = Share::of(kBlocks, axis.rank(), axis.size());
      std::vector<Sums> parts;
      for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
        parts.push_back({static_cast<float>(k), static_cast<float>(2 * k)});  // 0 … 7 and 0 … 14
      std::vector<Sums> out(1);
      Statistics(blocks.local, &axis).means(parts, 2, out);
      const std::lock_guard lock(mutex);
      wrong += out[0].dn != 28.0f / 16 || out[0].dn_n != 56.0f / 16;
    });
    EXPECT_EQ(wrong, 0) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace lamina
