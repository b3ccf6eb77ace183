#include "launch/step_trace/clock_offset.h"

#include <gtest/gtest.h>

#include <vector>

namespace lamina {
namespace {

using Times = std::vector<BarrierTimes>;

Times ahead_by(std::int64_t offset, Times times) {
  for (BarrierTimes& t : times) t = {t.enter + offset, t.leave + offset};
  return times;
}

TEST(ClockOffset, IsNothingForOneClock) {
  const Times other{{100, 205}, {300, 410}}, own{{190, 260}, {305, 500}};

  EXPECT_EQ(clock_offset(own, other), 0);
  EXPECT_EQ(clock_offset(own, own), 0);
}

TEST(ClockOffset, IsFoundBetweenItsLimits) {
  const Times other{{100, 205}, {300, 410}},
      own{{195, 215}, {395, 420}};  // of one clock: between -15 and 115

  for (const double seconds : {-5.0, -1e-6, 1e-6, 7.0}) {
    const auto offset = static_cast<std::int64_t>(1e9 * seconds);
    const std::int64_t found = clock_offset(ahead_by(offset, own), other);
    EXPECT_GE(found, offset - 15);
    EXPECT_LE(found, offset + 115);
  }
}

TEST(ClockOffset, OfRanksOfOneMachineIsNothing) {
  run_on_threads(3, [](Communicator& world) { EXPECT_EQ(offset_to_root(world), 0); });
}

}  // namespace
}  // namespace lamina
