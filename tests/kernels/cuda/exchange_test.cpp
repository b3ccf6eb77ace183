#include "kernels/cuda/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "kernels/cuda/exchanges/alone.h"
#include "kernels/cuda/exchanges/nccl.h"
#include "kernels/cuda/exchanges/staged.h"
#include "tests/support/cuda_backend/gpu_ranks.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

namespace lamina::cuda {
namespace {

using Floats = std::vector<float>;
using Parameters = std::tuple<std::string, int, bool>;  // transport, ranks, lazy streams

constexpr std::size_t kCounts[] = {1, 7, 1000, 40000};

/// What rank `from` sends to rank `to` in element `i`.
float value(int from, int to, std::size_t i) {
  return static_cast<float>(from * 1000000 + to * 100000) + static_cast<float>(i);
}

Floats block(int from, int to, std::size_t count) {
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = value(from, to, i);
  return values;
}

/// [ranks * count]: make(rank) after make(rank).
template <class Make>
Floats joined(int ranks, const Make& make) {
  Floats all;
  for (int rank = 0; rank < ranks; ++rank) {
    const Floats part = make(rank);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

class ExchangeTest : public ::testing::TestWithParam<Parameters> {
 protected:
  using Body = std::function<void(Device&, Exchange&)>;

  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }
  void TearDown() override { cuda_on_cpu::reset(); }

  void run(const Body& body) {
    const auto& [transport, ranks, lazy] = GetParam();
    cuda_on_cpu::set_lazy_streams(lazy);
    run_on_gpus(ranks, transport == "nccl" ? Gpus::one_each : Gpus::one,
                [&](Device& device, Communicator& world) {
                  const auto exchange = make_exchange(device, world);
                  body(device, *exchange);
                });
  }
};

TEST_P(ExchangeTest, IsTheOneThatTheRanksCanUse) {
  const auto& [transport, ranks, lazy] = GetParam();

  run([&](Device&, Exchange& exchange) {
    EXPECT_EQ(exchange.transport(), ranks == 1 ? "none" : transport);
    EXPECT_EQ(exchange.is_capturable(), exchange.transport() != "staged");
    EXPECT_EQ(exchange.size(), ranks);
  });
}

TEST_P(ExchangeTest, GathersAllParts) {
  run([](Device& device, Exchange& exchange) {
    for (const std::size_t count : kCounts) {
      const auto part = to_device(device, block(exchange.rank(), 0, count));
      auto all = device.allocate<float>(count * static_cast<std::size_t>(exchange.size()));

      exchange.all_gather(part.view().data(), all.view().data(), count);

      const Floats expected = joined(exchange.size(), [&](int from) { return block(from, 0, count); });
      EXPECT_EQ(to_host(device, all.view()), expected) << count;
    }
  });
}

TEST_P(ExchangeTest, GathersInPlace) {
  run([](Device& device, Exchange& exchange) {
    for (const std::size_t count : kCounts) {
      const auto own = [&](int rank) {
        return rank == exchange.rank() ? block(rank, 0, count) : Floats(count);
      };
      auto all = to_device(device, joined(exchange.size(), own));

      exchange.all_gather(all.view().data() + static_cast<std::size_t>(exchange.rank()) * count,
                          all.view().data(), count);

      const Floats expected = joined(exchange.size(), [&](int from) { return block(from, 0, count); });
      EXPECT_EQ(to_host(device, all.view()), expected) << count;
    }
  });
}

TEST_P(ExchangeTest, SendsEachBlockToItsRank) {
  run([](Device& device, Exchange& exchange) {
    const int ranks = exchange.size();
    for (const std::size_t count : kCounts) {
      const auto in =
          to_device(device, joined(ranks, [&](int to) { return block(exchange.rank(), to, count); }));
      auto out = device.allocate<float>(in.size());

      exchange.all_to_all(in.view().data(), out.view().data(), count);

      const Floats expected = joined(ranks, [&](int from) { return block(from, exchange.rank(), count); });
      EXPECT_EQ(to_host(device, out.view()), expected) << count;
    }
  });
}

TEST_P(ExchangeTest, DoesNothingForNothing) {
  run([](Device& device, Exchange& exchange) {
    auto memory = device.allocate<float>(8);

    exchange.all_gather(memory.view().data(), memory.view().data() + 4, 0);
    exchange.all_to_all(memory.view().data(), memory.view().data() + 4, 0);

    EXPECT_EQ(to_host(device, memory.view()), Floats(8));
  });
}

TEST_P(ExchangeTest, CanBePartOfAGraph) {
  run([](Device& device, Exchange& exchange) {
    if (!exchange.is_capturable()) return;
    const auto ranks = static_cast<std::size_t>(exchange.size());
    auto part = device.allocate<float>(3), all = device.allocate<float>(3 * ranks),
         turned = device.allocate<float>(3 * ranks);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    verify(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal), "begin");
    exchange.all_gather(part.view().data(), all.view().data(), 3);
    exchange.all_to_all(all.view().data(), turned.view().data(), 3);
    verify(cudaStreamEndCapture(device.stream(), &graph), "end");
    verify(cudaGraphInstantiate(&executable, graph), "instantiate");

    for (const int run : {1, 2}) {
      const Floats own = block(exchange.rank(), run, 3);
      device.to_device(own.data(), part.view().data(), 3 * sizeof(float));
      verify(cudaGraphLaunch(executable, device.stream()), "launch");

      // Everyone gathered the same, so a rank gets its own part from each.
      EXPECT_EQ(to_host(device, turned.view()), joined(exchange.size(), [&](int) { return own; }));
    }
    verify(cudaGraphExecDestroy(executable), "destroy");
    verify(cudaGraphDestroy(graph), "destroy");
  });
}

TEST_P(ExchangeTest, EndsInOrder) {
  run([](Device&, Exchange&) {});

  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
  EXPECT_EQ(nccl_on_cpu::aborted(), 0);
}

std::string name_of(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [transport, ranks, lazy] = info.param;
  return transport + "_" + std::to_string(ranks) + (lazy ? "_lazy" : "");
}

INSTANTIATE_TEST_SUITE_P(Transports, ExchangeTest,
                         ::testing::Combine(::testing::Values("staged", "nccl"), ::testing::Values(1, 2, 4),
                                            ::testing::Values(false)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(LazyStreams, ExchangeTest,
                         ::testing::Combine(::testing::Values("staged", "nccl"), ::testing::Values(4),
                                            ::testing::Values(true)),
                         name_of);

}  // namespace
}  // namespace lamina::cuda
