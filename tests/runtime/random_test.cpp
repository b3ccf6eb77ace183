#include "runtime/random.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

namespace lamina {
namespace {

// Of the known answers that its authors publish with Random123.
TEST(Philox, GivesTheKnownAnswers) {
  constexpr std::uint32_t kOnes = 0xffffffff;

  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Computed apart from the program. A change of these numbers changes every run, and what a resumed one draws.
TEST(RandomStream, KeepsItsNumbers) {
  const RandomStream stream(1, "initialize/lstm0/W_h");

  const PhiloxBlock first = stream.bits(0, 0);
  const PhiloxBlock far = stream.bits(std::uint64_t{1} << 40, std::uint64_t{1} << 50);

  EXPECT_EQ(first, (PhiloxBlock{32177252, 576518630, 1055118615, 2993395538}));
  EXPECT_EQ(far, (PhiloxBlock{1275169964, 2072439395, 4040239055, 4275817860}));
}

TEST(RandomStream, NeighboursShareABlock) {
  const RandomStream stream(3, "dropout");

  for (std::uint64_t index = 0; index < 40; ++index)
    EXPECT_EQ(stream.uniform(5, index), to_unit_interval(stream.bits(5, index / 4)[index % 4]));
}

TEST(RandomStream, CoversTheUnitIntervalEvenly) {
  const RandomStream stream(11, "sample");
  constexpr std::size_t kDraws = 100000, kBins = 20;
  std::array<double, kBins> counts{};
  double sum = 0;

  for (std::size_t i = 0; i < kDraws; ++i) {
    const float draw = stream.uniform(0, i);
    ASSERT_GE(draw, 0.0f);
    ASSERT_LT(draw, 1.0f);
    sum += static_cast<double>(draw);
    ++counts[static_cast<std::size_t>(draw * kBins)];
  }

  constexpr double kExpected = static_cast<double>(kDraws) / kBins;
  double chi_squared = 0;
  for (const double count : counts) chi_squared += (count - kExpected) * (count - kExpected) / kExpected;
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_LT(chi_squared, 43.8);  // 19 degrees of freedom: exceeded once in a thousand
}

TEST(UnitInterval, EndsBelowOne) {
  EXPECT_EQ(to_unit_interval(0), 0.0f);
  EXPECT_EQ(to_unit_interval(0xffffffff), 1 - 0x1.0p-24f);
}

double correlation(const RandomStream& a, std::uint64_t step_a, const RandomStream& b, std::uint64_t step_b) {
  constexpr std::size_t kDraws = 20000;
  double sum = 0;
  for (std::size_t i = 0; i < kDraws; ++i)
    sum +=
        (static_cast<double>(a.uniform(step_a, i)) - 0.5) * (static_cast<double>(b.uniform(step_b, i)) - 0.5);
  return 12 * sum / kDraws;
}

TEST(RandomStream, PurposesSeedsAndStepsAreIndependent) {
  const RandomStream stream(1, "dropout/lstm0");

  EXPECT_NEAR(correlation(stream, 0, stream, 0), 1, 0.03);
  EXPECT_NEAR(correlation(stream, 0, RandomStream(1, "dropout/lstm1"), 0), 0, 0.03);
  EXPECT_NEAR(correlation(stream, 0, RandomStream(2, "dropout/lstm0"), 0), 0, 0.03);
  EXPECT_NEAR(correlation(stream, 0, stream, 1), 0, 0.03);
}

TEST(RandomStream, LargeIndicesAndStepsDoNotRepeat) {
  const RandomStream stream(1, "x");
  const std::uint64_t far = std::uint64_t{1} << 32;

  EXPECT_NE(stream.bits(0, 0), stream.bits(0, far));
  EXPECT_NE(stream.bits(0, 0), stream.bits(far, 0));
  EXPECT_NE(stream.bits(0, 1), stream.bits(1, 0));
}

}  // namespace
}  // namespace lamina
