// Sleepers are woken by the next number, also those that went to sleep in the moment of its publication.
#include "runtime/communicators/shared_number.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace lamina {
namespace {

using namespace std::chrono_literals;

TEST(SharedNumber, WakesWhoSleeps) {
  SharedNumber number;
  std::atomic<int> woken = 0;
  const auto sleep = [&] {
    SharedNumber::Sleeper sleeper(number);
    while (number.load() == 0) sleeper.sleep_while(0);
    ++woken;
  };

  {
    const std::jthread first(sleep), second(sleep);
    std::this_thread::sleep_for(20ms);
    EXPECT_EQ(0, woken);
    number.publish(7);
  }

  EXPECT_EQ(2, woken);
}

TEST(SharedNumber, SleepEndsByItselfSoThatTheCallerCanLookAtOtherThings) {
  SharedNumber number;
  SharedNumber::Sleeper sleeper(number);

  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) sleeper.sleep_while(0);

  EXPECT_GT(10s, std::chrono::steady_clock::now() - start);
  EXPECT_EQ(0u, number.load());
}

TEST(SharedNumber, TwoRanksInTurnNeverStayAsleep) {
  constexpr std::uint64_t kTurns = 3000;
  SharedNumber ping, pong;
  const auto wait = [](SharedNumber& number, std::uint64_t turn) {
    SharedNumber::Sleeper sleeper(number);
    while (number.load() != turn) sleeper.sleep_while(turn - 1);
  };

  {
    const std::jthread other([&] {
      for (std::uint64_t turn = 1; turn <= kTurns; ++turn) {
        wait(ping, turn);
        pong.publish(turn);
      }
    });
    for (std::uint64_t turn = 1; turn <= kTurns; ++turn) {
      ping.publish(turn);
      wait(pong, turn);
    }
  }

  EXPECT_EQ(kTurns, pong.load());
}

}  // namespace
}  // namespace lamina
