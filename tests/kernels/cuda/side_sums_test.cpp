#include "kernels/cuda/side_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <string>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/exchanges/staged.h"
#include "runtime/error.h"
#include "tests/support/cuda_backend/gpu_ranks.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

namespace lamina::cuda {
namespace {

using Floats = std::vector<float>;

class SideSumsTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
    cuda_on_cpu::set_lazy_streams(true);  // what nobody waits for does not happen
  }
  void TearDown() override { cuda_on_cpu::reset(); }
};

TEST_P(SideSumsTest, HasTheBitsOfTheHostsSum) {
  run_on_gpus(GetParam(), Gpus::one_each, [](Device& device, Communicator& world) {
    const auto exchange = make_exchange(device, world);
    constexpr std::size_t kMost = 50003;
    SideSums sums(device, *exchange, kMost);
    for (int round = 0; round < 2; ++round) {
      Floats large = values_of(world.rank(), kMost), small = values_of(world.rank(), 5);
      auto on_device = to_device(device, large), small_on_device = to_device(device, small);
      const std::size_t before = cuda_on_cpu::memory_in_use(device.ordinal());

      sums.add(on_device.view());
      sums.add(small_on_device.view());
      sums.finish();

      EXPECT_EQ(cuda_on_cpu::memory_in_use(device.ordinal()), before);
      world.all_reduce(std::span(large));
      world.all_reduce(std::span(small));
      EXPECT_EQ(to_host(device, on_device.view()), large);
      EXPECT_EQ(to_host(device, small_on_device.view()), small);
    }
  });
}

// What is on the device's own stream before add() comes first; what comes after finish() sees the sums.
TEST_P(SideSumsTest, KeepsTheOrderOfTheDevicesWork) {
  run_on_gpus(GetParam(), Gpus::one_each, [](Device& device, Communicator& world) {
    const auto exchange = make_exchange(device, world);
    SideSums sums(device, *exchange, 1000);
    auto ones = to_device(device, Floats(1000, 1)), values = device.allocate<float>(1000),
         copy = device.allocate<float>(1000);
    const std::size_t bytes = 1000 * sizeof(float);

    device.copy(ones.view().data(), values.view().data(), bytes);
    sums.add(values.view());
    device.clear(ones.view().data(), bytes);
    sums.finish();
    device.copy(values.view().data(), copy.view().data(), bytes);

    EXPECT_EQ(to_host(device, copy.view()), Floats(1000, static_cast<float>(world.size())));
  });
}

/// Two exchanges of a rank: over the world, and over another communicator of the same ranks.
struct TwoExchanges {
  TwoExchanges(Device& device, Communicator& world)
      : group(world.split(0, world.rank())),
        of_sums(make_exchange(device, world)),
        of_layers(make_exchange(device, *group)) {}

  std::unique_ptr<Communicator> group;
  std::unique_ptr<Exchange> of_sums, of_layers;
};

/// Waits for its turn, and gives it away.
TEST_P(SideSumsTest, TakeTurnsWithOtherExchanges) {
  run_on_gpus(GetParam(), Gpus::one_each, [](Device& device, Communicator& world) {
    TwoExchanges exchanges(device, world);
    SideSumsInTurns sums(device, *exchanges.of_sums, 1000);
    const auto ranks = static_cast<std::size_t>(world.size());
    const auto sum = static_cast<float>(world.size());
    auto values = to_device(device, Floats(1000, 1)), gathered = device.allocate<float>(1000 * ranks);
    const auto exchange = [&] {
      exchanges.of_layers->all_gather(values.view().data(), gathered.view().data(), 1000);
    };

    sums.add(values.view(500, 300));
    sums.add(values.view(200, 300));
    exchange();
    EXPECT_EQ(to_host(device, gathered.view()), Floats(1000 * ranks, 1)) << "before its turn";
    sums.advance();
    sums.pause();
    sums.add(values.view(0, 200));
    exchange();
    sums.advance();
    sums.add(values.view(900, 100));
    sums.finish();
    exchange();

    Floats expected(1000, sum);
    std::fill_n(expected.begin() + 800, 100, 1.0f);
    EXPECT_EQ(to_host(device, values.view()), expected);
    expected.resize(1000 * ranks);
    for (std::size_t rank = 1; rank < ranks; ++rank)
      std::copy_n(expected.begin(), 1000, expected.begin() + static_cast<std::ptrdiff_t>(1000 * rank));
    EXPECT_EQ(to_host(device, gathered.view()), expected);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, SideSumsTest, ::testing::Values(2, 3, 4));

TEST_F(SideSumsTest, RefuseAnExchangeThatWaits) {
  run_on_gpus(2, Gpus::one, [](Device& device, Communicator& world) {
    const auto staged = make_exchange(device, world);
    EXPECT_THROW(SideSums(device, *staged, 10), InternalError);
  });
}

// Ranks could begin different ones first: the emulated GPU finds that out, which the tests of turns rely on.
TEST_F(SideSumsTest, AreWrongBesideOtherExchangesWithoutTurns) {
  std::atomic<int> told = 0;
  run_on_gpus(2, Gpus::one_each, [&](Device& device, Communicator& world) {
    TwoExchanges exchanges(device, world);
    SideSums sums(device, *exchanges.of_sums, 10);
    auto values = device.allocate<float>(10), gathered = device.allocate<float>(20);
    const auto exchange_both = [&] {
      sums.add(values.view());
      exchanges.of_layers->all_gather(values.view().data(), gathered.view().data(), 10);
    };

    EXPECT_THROW(exchange_both(), PeerError);

    if (cuda_on_cpu::last_complaint().find("nothing says which comes first") != std::string::npos) ++told;
    cuda_on_cpu::forget_errors();
  });
  EXPECT_GE(told, 1);  // the other rank may have heard of it from its peer
}

TEST_F(SideSumsTest, TakeTurnsWhereTheBackendExchangesOtherThings) {
  cuda_on_cpu::set_device_count(2);
  run_on_threads(2, [](Communicator& world) {
    const auto other = world.split(0, world.rank());
    const auto add_layer = [&](CudaBackend& backend) {
      return backend.make_embedding_lookup({.vocabulary = 5,
                                            .width = 4,
                                            .max_time_steps = 1,
                                            .tiling = {Share::of(1, 0, 1), Share::of(2, world.rank(), 2), 1}},
                                           *other);
    };
    CudaBackend without(world.rank()), with(world.rank());
    const auto layer = add_layer(with);
    const auto at_any_time = without.make_background_sums(world, 3),
               in_turns = with.make_background_sums(world, 3);

    EXPECT_NE(dynamic_cast<SideSums*>(at_any_time.get()), nullptr);
    EXPECT_NE(dynamic_cast<SideSumsInTurns*>(in_turns.get()), nullptr);
    EXPECT_THROW(add_layer(without), InternalError);
    for (const auto& [backend, sums] : {std::pair{&without, at_any_time.get()}, {&with, in_turns.get()}}) {
      auto values = backend->allocate(3);
      backend->fill(values.view(), 1);
      sums->add(values.view());
      sums->finish();
      Floats result(3);
      backend->to_host(values.view(), result);
      EXPECT_EQ(result, Floats(3, 2));
    }
  });
}

}  // namespace
}  // namespace lamina::cuda
