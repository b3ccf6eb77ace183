// Gathers and sums over unit blocks, with integers, so that every sum is exact; and the order of inexact
// ones.
#include "kernels/cpu/blocks.h"

#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "runtime/random.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

constexpr int kBlocks = 8, kGroups = 2, kRows = 3, kWidth = 5;

/// A value that names its place.
float value(int group, int block, int row, int column) {
  return static_cast<float>(((group * kBlocks + block) * kRows + row) * kWidth + column);
}

std::vector<float> blocked_values(const Share& blocks) {
  std::vector<float> values;
  for (int d = 0; d < kGroups; ++d)
    for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kWidth; ++c) values.push_back(value(d, k, r, c));
  return values;
}

class Blocks : public testing::TestWithParam<int> {
 protected:
  /// body(axis, blocks) on every rank; its verdicts are collected, for a rank must not stop alone.
  template <class Body>
  static void on_ranks(const Body& body) {
    std::mutex mutex;
    int failures = 0;
    run_on_threads(GetParam(), [&](Communicator& axis) {
      const int failed = body(axis, Share::of(kBlocks, axis.rank(), axis.size()));
      const std::lock_guard lock(mutex);
      failures += failed;
    });
    EXPECT_EQ(failures, 0);
  }
};

TEST_P(Blocks, GatherMakesCompleteRows) {
  on_ranks([](Communicator& axis, const Share& blocks) {
    constexpr std::size_t stride = 2 * kRows * kBlocks * kWidth;  // as inside a longer history
    std::vector<float> full(kGroups * stride, -1);

    BlockGather(blocks, axis).run(kGroups, kRows, kWidth, blocked_values(blocks), full.data(), stride);

    int wrong = 0;
    for (int d = 0; d < kGroups; ++d)
      for (int r = 0; r < kRows; ++r)
        for (int k = 0; k < kBlocks; ++k)
          for (int c = 0; c < kWidth; ++c)
            wrong += full[static_cast<std::size_t>(d) * stride +
                          static_cast<std::size_t>((r * kBlocks + k) * kWidth + c)] != value(d, k, r, c);
    return wrong;
  });
}

/// `Blocks` of more than a slot holds travel in pieces that end anywhere.
TEST_P(Blocks, GatherPutsPiecesTogether) {
  constexpr int width = 20'001;
  on_ranks([](Communicator& axis, const Share& blocks) {
    const auto index = [](int d, int k, int r, int c) {
      return static_cast<std::size_t>(((d * kBlocks + k) * kRows + r) * width + c);
    };
    std::vector<float> blocked, full(kGroups * kBlocks * kRows * width), all(full.size());
    for (int d = 0; d < kGroups; ++d)
      for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
        for (int i = 0; i < kRows * width; ++i) blocked.push_back(static_cast<float>(index(d, k, 0, i)));

    BlockGather(blocks, axis).run(kGroups, kRows, width, blocked, full.data(), kRows * kBlocks * width);
    BlockGather(blocks, axis).run_blocked(kGroups, kRows, width, blocked, all);

    int wrong = 0;
    for (int d = 0; d < kGroups; ++d)
      for (int k = 0; k < kBlocks; ++k)
        for (int r = 0; r < kRows; ++r)
          for (int c = 0; c < width; ++c) {
            const auto row = static_cast<std::size_t>((d * kRows + r) * kBlocks + k);
            const auto expected = static_cast<float>(index(d, k, r, c));
            wrong += full[row * width + static_cast<std::size_t>(c)] != expected;
            wrong += all[index(d, k, r, c)] != expected;
          }
    return wrong;
  });
}

TEST_P(Blocks, GatherOfBlocksKeepsThemApart) {
  on_ranks([](Communicator& axis, const Share& blocks) {
    std::vector<float> all(kGroups * kBlocks * kRows * kWidth);

    BlockGather(blocks, axis).run_blocked(kGroups, kRows, kWidth, blocked_values(blocks), all);

    return static_cast<int>(all != blocked_values(Share::of(kBlocks, 0, 1)));
  });
}

/// Parts of a block that go to arrays of their own, in pieces that end anywhere.
TEST_P(Blocks, GatherBringsPartsToTheirPlaces) {
  constexpr std::size_t size = 30'011, parts = 2;
  on_ranks([](Communicator& axis, const Share& blocks) {
    const auto index = [](std::size_t d, std::size_t g, std::size_t part) {
      return ((d * kBlocks + g) * parts + part) * size;
    };
    std::vector<float> blocked, first(kGroups * kBlocks * size, -1), second = first;
    for (std::size_t d = 0; d < kGroups; ++d)
      for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
        for (std::size_t i = 0; i < parts * size; ++i)
          blocked.push_back(static_cast<float>(index(d, static_cast<std::size_t>(k), 0) + i));

    const auto place = [&](std::size_t d, std::size_t g, std::size_t part) {
      return &(part == 0 ? first : second)[(d * kBlocks + g) * size];
    };
    BlockGather gather(blocks, axis);
    ExchangeRound round(axis);
    gather.send_parts(kGroups, parts, size, blocked, place, round);
    round.exchange();

    int wrong = 0;
    for (std::size_t d = 0; d < kGroups; ++d)
      for (std::size_t g = 0; g < kBlocks; ++g)
        for (std::size_t i = 0; i < size; ++i) {
          wrong += first[(d * kBlocks + g) * size + i] != static_cast<float>(index(d, g, 0) + i);
          wrong += second[(d * kBlocks + g) * size + i] != static_cast<float>(index(d, g, 1) + i);
        }
    return wrong;
  });
}

/// What block `block` contributes to (group, row, column): not exact in a sum.
float contribution(int group, int block, int row, int column) {
  static const RandomStream stream(3, "contributions");
  const int place = ((group * kBlocks + block) * kRows + row) * kBlocks * kWidth + column;
  return stream.uniform(0, static_cast<std::uint64_t>(place));
}

/// The sums over all blocks, in tree order, for the columns of these.
std::vector<float> tree_sums_of(const Share& blocks) {
  std::vector<float> sums;
  for (int d = 0; d < kGroups; ++d)
    for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kWidth; ++c)
          sums.push_back(tree_sum(kBlocks, [&](std::size_t b) {
            return contribution(d, static_cast<int>(b), r, k * kWidth + c);
          }));
  return sums;
}

TEST_P(Blocks, SumFollowsTheTreeOverAllBlocks) {
  on_ranks([](Communicator& axis, const Share& blocks) {
    std::vector<float> out(static_cast<std::size_t>(kGroups * blocks.local * kRows * kWidth));
    BlockSum sum(blocks, axis);

    sum.start(kGroups, kRows, kWidth, out);
    for (int d = 0; d < kGroups; ++d)
      for (int first = 0; first < kRows; first += 2) {  // pieces of two rows and of one
        const int count = std::min(2, kRows - first);
        std::vector<float> partials;
        for (int k = blocks.first; k < blocks.first + blocks.local; ++k)
          for (int r = first; r < first + count; ++r)
            for (int c = 0; c < kBlocks * kWidth; ++c) partials.push_back(contribution(d, k, r, c));
        sum.add(d, first, count, partials);
      }
    sum.finish();

    return static_cast<int>(out != tree_sums_of(blocks));
  });
}

TEST_P(Blocks, SumTakesWhatIsSummedAlready) {
  on_ranks([](Communicator& axis, const Share& blocks) {
    std::vector<float> out(static_cast<std::size_t>(kGroups * blocks.local * kRows * kWidth));
    BlockSum sum(blocks, axis);

    sum.start(kGroups, kRows, kWidth, out);
    for (int d = 0; d < kGroups; ++d)
      for (int r = 0; r < kRows; ++r) {
        std::vector<float> row;
        for (int c = 0; c < kBlocks * kWidth; ++c)
          row.push_back(tree_sum(
              static_cast<std::size_t>(blocks.local),
              [&](std::size_t b) { return contribution(d, static_cast<int>(b), r, c); },
              static_cast<std::size_t>(blocks.first)));
        sum.set(d, r, 1, row.data());
      }
    sum.finish();

    return static_cast<int>(out != tree_sums_of(blocks));
  });
}

INSTANTIATE_TEST_SUITE_P(ModelRanks, Blocks, testing::Values(1, 2, 4, 8));

}  // namespace
}  // namespace lamina
