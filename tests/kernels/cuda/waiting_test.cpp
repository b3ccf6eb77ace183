#include "kernels/cuda/waiting.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "kernels/cuda/device.h"
#include "runtime/error.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace lamina::cuda {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

TEST(WaitUntil, EndsWhenItIsDone) {
  int asked = 0;

  wait_until([&] { return ++asked == 3; }, [](auto) {});

  EXPECT_EQ(asked, 3);
}

TEST(WaitUntil, EndsByTheCheckThatThrows) {
  std::chrono::nanoseconds told{};
  const auto check = [&](std::chrono::nanoseconds waited) {
    EXPECT_GT(waited, told);
    told = waited;
    if (waited > 30ms) throw PeerError("too long");
  };

  EXPECT_THROW(wait_until([] { return false; }, check), PeerError);
}

TEST(WaitWithin, TellsWhetherItWasDone) {
  const Clock::time_point start = Clock::now();

  EXPECT_TRUE(wait_within(10s, [] { return true; }));
  EXPECT_FALSE(wait_within(20ms, [] { return false; }));

  EXPECT_LT(Clock::now() - start, 5s);
}

TEST(WaitChecks, AsksThoseThatAreThere) {
  WaitChecks checks;
  int first = 0, second = 0;
  std::optional<WaitChecks::Entry> entry;
  entry.emplace(checks, [&](auto) { ++first; });
  const WaitChecks::Entry other(checks, [&](auto) { ++second; });

  checks.ask(1ms);
  entry.reset();
  checks.ask(1ms);

  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 2);
  EXPECT_FALSE(checks.empty());
}

void nap(void*) { std::this_thread::sleep_for(2ms); }

class DeviceWaits : public ::testing::Test {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    cuda_on_cpu::set_lazy_streams(true);
    device.emplace(0);
  }
  void TearDown() override {
    device.reset();
    cuda_on_cpu::reset();
  }

  void keep_busy(int naps) {
    for (int i = 0; i < naps; ++i)
      verify(cudaLaunchHostFunc(device->stream(), nap, nullptr), "cudaLaunchHostFunc");
  }

  std::optional<Device> device;
};

TEST_F(DeviceWaits, AskTheChecksAndEnd) {
  int asked = 0;
  const WaitChecks::Entry entry(device->wait_checks(), [&](auto) { ++asked; });
  keep_busy(20);

  device->synchronize();

  EXPECT_EQ(cudaStreamQuery(device->stream()), cudaSuccess);
  EXPECT_GT(asked, 1);
}

TEST_F(DeviceWaits, EndByACheckThatThrows) {
  const auto check = [](std::chrono::nanoseconds waited) {
    if (waited > 20ms) throw PeerError("too long");
  };
  const WaitChecks::Entry entry(device->wait_checks(), check);
  keep_busy(100);
  float value = 0;
  const auto memory = device->allocate<float>(1);

  EXPECT_THROW(device->to_host(memory.view().data(), &value, sizeof value), PeerError);
}

// Before the host uses what it waited for, and as long as they are there.
TEST_F(DeviceWaits, AskInTheEndWhetherWorkFailed) {
  float value = 0;
  const auto memory = device->allocate<float>(1);
  {
    const EndChecks::Entry entry(device->end_checks(), [&] {
      EXPECT_EQ(cudaStreamQuery(device->stream()), cudaSuccess);
      throw InternalError("it failed");
    });
    keep_busy(2);

    EXPECT_THROW(device->synchronize(), InternalError);
    EXPECT_THROW(device->to_host(memory.view().data(), &value, sizeof value), InternalError);
  }
  EXPECT_NO_THROW(device->synchronize());
}

}  // namespace
}  // namespace lamina::cuda
