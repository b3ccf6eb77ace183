// Gathers and sums over unit blocks on devices, against those on CPUs.
#include "kernels/cuda/blocks.h"

#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "kernels/cpu/blocks.h"
#include "runtime/tree.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::cuda {
namespace {

using test::random_values;
using test::same_bits;
using Floats = std::vector<float>;

constexpr int kBlocks = 8, kGroups = 4, kRows = 3, kWidth = 37;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

class DeviceValues {
 public:
  DeviceValues(Device& device, const Floats& host)
      : device_(device), values_(device.allocate<float>(host.size())) {
    device.to_device(host.data(), data(), host.size() * sizeof(float));
  }
  float* data() { return values_.view().data(); }
  Floats host() {
    Floats host(values_.size());
    device_.to_host(data(), host.data(), host.size() * sizeof(float));
    return host;
  }

 private:
  Device& device_;
  Buffer<float> values_;
};

class CudaBlocks : public testing::TestWithParam<int> {
 protected:
  /// verdict(device, exchange, axis, blocks) on every rank; a rank must not stop alone.
  template <class Verdict>
  static void on_ranks(const Verdict& verdict) {
    std::mutex mutex;
    std::vector<testing::AssertionResult> verdicts;
    run_on_threads(GetParam(), [&](Communicator& axis) {
      Device device(0);
      const auto exchange = make_exchange(device, axis);
      const auto mine = verdict(device, *exchange, axis, Share::of(kBlocks, axis.rank(), axis.size()));
      const std::lock_guard lock(mutex);
      verdicts.push_back(mine);
    });
    for (const auto& mine : verdicts) EXPECT_TRUE(mine);
  }
};

// Full rows lie as inside a longer history, and what is between them stays.
TEST_P(CudaBlocks, GatherAsOnCpus) {
  on_ranks([](Device& device, Exchange& exchange, Communicator& axis, const Share& blocks) {
    constexpr std::size_t kStride = 2 * kRows * kBlocks * kWidth;
    const Floats blocked = random_values("blocked " + std::to_string(axis.rank()),
                                         size(kGroups * kRows * kWidth * blocks.local));
    Floats expected(kGroups * kStride, -1);
    DeviceValues on_device(device, blocked), full(device, expected);

    lamina::BlockGather(blocks, axis).run(kGroups, kRows, kWidth, blocked, expected.data(), kStride);
    BlockGather gather(device, blocks, exchange, 2 * blocked.size());
    gather.run(kGroups, kRows, kWidth, on_device.data(), full.data(), kStride);

    return same_bits(full.host(), expected);
  });
}

/// [groups, K, rows, G * width] of all groups.
Floats partials_of(int rank, const Share& blocks) {
  return random_values("partials " + std::to_string(rank),
                       size(kGroups * blocks.local) * size(kRows * kBlocks * kWidth));
}

Floats sum_on_cpu(Communicator& axis, const Share& blocks, const Floats& partials) {
  lamina::BlockSum sum(blocks, axis);
  Floats out(size(kGroups * blocks.local * kRows * kWidth));
  sum.start(kGroups, kRows, kWidth, out);
  const std::size_t of_group = partials.size() / kGroups;
  for (int d = 0; d < kGroups; ++d)
    sum.add(d, 0, kRows, std::span(partials).subspan(size(d) * of_group, of_group));
  sum.finish();
  return out;
}

TEST_P(CudaBlocks, SumAsOnCpusInAnyPieces) {
  on_ranks([](Device& device, Exchange& exchange, Communicator& axis, const Share& blocks) {
    const Floats partials = partials_of(axis.rank(), blocks), expected = sum_on_cpu(axis, blocks, partials);
    const std::size_t of_group = partials.size() / kGroups;
    DeviceValues on_device(device, partials), out(device, Floats(expected.size(), -1));
    BlockSum sum(device, blocks, exchange, 2 * expected.size());
    for (const int count : {1, 2, kGroups}) {
      sum.start(kGroups, kRows, kWidth, out.data());
      for (int d = 0; d < kGroups; d += count) sum.add(d, count, on_device.data() + size(d) * of_group);
      sum.finish();

      const auto same = same_bits(out.host(), expected);
      if (!same) return same;
    }
    return testing::AssertionSuccess();
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, CudaBlocks, testing::Values(1, 2, 4, 8));

TEST(CudaTreeSum, FollowsTheTree) {
  Device device(0);
  constexpr std::size_t kSize = 300, kLeafStride = 333;
  for (const int count : {1, 2, 8, 64}) {
    const Floats leaves = random_values("leaves", size(count) * kLeafStride);
    DeviceValues on_device(device, leaves), out(device, Floats(kSize, -1));
    Floats expected(kSize);
    for (std::size_t i = 0; i < kSize; ++i)
      expected[i] =
          lamina::tree_sum(size(count), [&](std::size_t leaf) { return leaves[leaf * kLeafStride + i]; });

    sum_in_tree_order(device, count, on_device.data(), kLeafStride, out.data(), kSize);

    EXPECT_TRUE(same_bits(out.host(), expected)) << count << " leaves";
  }
  EXPECT_THROW(sum_in_tree_order(device, 3, nullptr, 0, nullptr, 0), InternalError);
  EXPECT_THROW(sum_in_tree_order(device, 128, nullptr, 0, nullptr, 0), InternalError);
}

TEST(CudaBlocksOnOneRank, RefuseMoreThanThereIsRoomFor) {
  Device device(0);
  const auto self = make_self_communicator();
  const auto alone = make_exchange(device, *self);
  const Share blocks{kBlocks, 0, kBlocks};
  BlockGather gather(device, blocks, *alone, 100);
  BlockSum sum(device, blocks, *alone, 100);

  EXPECT_THROW(gather.run(1, 1, 13, nullptr, nullptr, 0), InternalError);
  EXPECT_THROW(sum.start(1, 1, 13, nullptr), InternalError);
  EXPECT_THROW(BlockSum(device, Share{kBlocks, 0, 4}, *alone, 100), InternalError);
}

}  // namespace
}  // namespace lamina::cuda
