#include "kernels/cuda/tree_all_reduce.h"

#include <gtest/gtest.h>

#include <bit>
#include <tuple>

#include "kernels/cuda/exchanges/staged.h"
#include "tests/support/cuda_backend/gpu_ranks.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

namespace lamina::cuda {
namespace {

using Floats = std::vector<float>;
using Parameters = std::tuple<int, Gpus>;

std::vector<std::uint32_t> bits_of(const Floats& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

class TreeAllReduceTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }
};

TEST_P(TreeAllReduceTest, HasTheBitsOfTheHostsSum) {
  const auto& [ranks, gpus] = GetParam();

  run_on_gpus(ranks, gpus, [](Device& device, Communicator& world) {
    const auto exchange = make_exchange(device, world);
    TreeAllReduce all_reduce(device, *exchange, /*scratch_bytes=*/std::size_t{64} << 10);
    for (const std::size_t count : {0, 1, 5, 4096, 16385, 50003}) {
      Floats expected = values_of(world.rank(), count);
      auto values = to_device(device, expected);

      all_reduce.sum(values.view());

      world.all_reduce(std::span(expected));
      EXPECT_EQ(bits_of(to_host(device, values.view())), bits_of(expected)) << count;
    }
  });
}

std::string name_of(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [ranks, gpus] = info.param;
  return std::to_string(ranks) + (gpus == Gpus::one ? "_staged" : "_nccl");
}

INSTANTIATE_TEST_SUITE_P(Ranks, TreeAllReduceTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 5, 8),
                                            ::testing::Values(Gpus::one, Gpus::one_each)),
                         name_of);

TEST(TreeAllReduce, KeepsNoMoreMemoryThanItMay) {
  cuda_on_cpu::reset();
  run_on_gpus(2, Gpus::one_each, [](Device& device, Communicator& world) {
    const auto exchange = make_exchange(device, world);
    constexpr std::size_t kScratch = std::size_t{64} << 10;
    TreeAllReduce all_reduce(device, *exchange, kScratch);
    auto values = device.allocate<float>(300000);
    const std::size_t before = cuda_on_cpu::memory_in_use(device.ordinal());

    all_reduce.sum(values.view());

    EXPECT_LE(cuda_on_cpu::memory_in_use(device.ordinal()), before + kScratch);
  });
}

}  // namespace
}  // namespace lamina::cuda
