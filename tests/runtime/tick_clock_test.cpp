#include "runtime/tick_clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace lamina {
namespace {

TEST(TickClock, AgreesWithTheSystemsClock) {
  using System = std::chrono::steady_clock;
  const TickClock clock;

  const System::time_point start = System::now();
  const std::uint64_t first = TickClock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::uint64_t last = TickClock::now();
  const double seconds = std::chrono::duration<double>(System::now() - start).count();

  EXPECT_LT(0.05 * 0.98, clock.seconds(last - first));
  EXPECT_GT(seconds * 1.02, clock.seconds(last - first));
  EXPECT_EQ(0, clock.seconds(0));
}

TEST(TickClock, DoesNotRunBackwards) {
  std::uint64_t before = TickClock::now();
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t now = TickClock::now();
    EXPECT_LE(before, now);
    before = now;
  }
}

}  // namespace
}  // namespace lamina
