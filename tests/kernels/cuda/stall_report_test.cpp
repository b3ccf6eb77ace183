#include "kernels/cuda/recurrence/stall_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "runtime/error.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace lamina::cuda {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class StallReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    cuda_on_cpu::set_lazy_streams(true);
  }
  void TearDown() override { cuda_on_cpu::reset(); }

  static PersistentGrid grid(int ranks) {
    return {.units = 8, .members = 4, .ranks = ranks, .teams = 1, .rows = 16, .row_tiles = 1};
  }
  /// A kernel that gives up, and the report of it.
  static void stall(Device& device, StallReport& report) {
    const Stall stall{.is_claimed = 1, .block = 1, .step = 7, .signal = Signal::rows};
    device.to_device(&stall, report.on_device(), sizeof stall);
    report.send();
  }
  static std::string error_of_wait(Device& device) {
    try {
      device.synchronize();
    } catch (const InternalError& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(StallReportTest, IsOfTheNextWaitAndOfAllLaterOnes) {
  Device device(0);
  StallReport report(device, grid(1), 0, "forward");
  report.send();
  EXPECT_EQ(error_of_wait(device), "no error");

  stall(device, report);
  report.send();  // of a pass that did not stall

  for (int wait = 0; wait < 2; ++wait)
    EXPECT_THAT(error_of_wait(device), HasSubstr("persistent recurrence, forward: block 1 (team 0, member 1) "
                                                 "waited too long in step 7 for rows of the other blocks"));
  float value = 0;
  const auto memory = device.allocate<float>(1);
  EXPECT_THROW(device.to_host(memory.view().data(), &value, sizeof value), InternalError);
}

TEST_F(StallReportTest, IsGoneWithItsRecurrence) {
  Device device(0);
  {
    StallReport report(device, grid(1), 0, "forward");
    stall(device, report);
  }

  EXPECT_EQ(error_of_wait(device), "no error");
}

void nap(void* naps) {
  std::this_thread::sleep_for(2ms);
  ++*static_cast<int*>(naps);
}

// What comes later on the stream may wait for a peer that is gone.
TEST_F(StallReportTest, OfPeersIsHeardBeforeTheStreamEnds) {
  constexpr int kNaps = 100;
  int naps = 0;
  Device device(0);
  StallReport forward(device, grid(2), 1, "forward"), backward(device, grid(2), 1, "backward");
  stall(device, forward);
  for (int i = 0; i < kNaps; ++i)
    verify(cudaLaunchHostFunc(device.stream(), nap, &naps), "cudaLaunchHostFunc");
  backward.send();

  EXPECT_THAT(error_of_wait(device), HasSubstr("forward: block 1 of model rank 1 of 2 (team 0, member 3)"));

  EXPECT_LT(naps, kNaps);
}

}  // namespace
}  // namespace lamina::cuda
