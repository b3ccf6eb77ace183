#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/communicators/slots.h"
#include "runtime/communicators/threads.h"
#include "tests/support/communicator_conformance.h"

namespace lamina {
namespace {

constexpr std::size_t kSmallSlot = 4096;

using Parameters = std::tuple<int, std::size_t, CommunicatorCheck>;
class ThreadCommunicator : public ::testing::TestWithParam<Parameters> {};

TEST_P(ThreadCommunicator, Conforms) {
  const auto& [ranks, slot_bytes, check] = GetParam();

  run_on_threads(ranks, slot_bytes, check.run);
}

std::string name_of(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [ranks, slot_bytes, check] = info.param;
  return std::to_string(ranks) + (slot_bytes == kSmallSlot ? "_small_slots_" : "_") + check.name;
}

INSTANTIATE_TEST_SUITE_P(Checks, ThreadCommunicator,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 8),
                                            ::testing::Values(kDefaultSlotBytes, kSmallSlot),
                                            ::testing::ValuesIn(communicator_checks())),
                         name_of);

TEST(RunOnThreads, GivesEachRankItsNumber) {
  std::atomic<int> seen = 0;

  run_on_threads(5, [&](Communicator& world) {
    EXPECT_EQ(5, world.size());
    EXPECT_EQ("threads", world.transport());
    seen += 1 << world.rank();
  });

  EXPECT_EQ(0b11111, seen);
}

TEST(RunOnThreads, RethrowsTheErrorOfTheRankThatFailedNotItsPeers) {
  const auto body = [](Communicator& world) {
    if (world.rank() == 2) throw UserError("no such file");
    world.barrier();
  };

  EXPECT_THROW(run_on_threads(4, body), UserError);
}

TEST(RunOnThreads, RethrowsTheLowestRanksErrorWhenAllFail) {
  try {
    run_on_threads(4, [](Communicator& world) {
      if (world.rank() > 0) throw UserError("rank " + std::to_string(world.rank()));
    });
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ("rank 1", error.what());
  }
}

TEST(RunOnThreads, TellsPeersInGroupsWhyARankFailed) {
  std::vector<std::string> heard(4);
  const auto body = [&](Communicator& world) {
    const auto group = world.split(world.rank() / 2, 0);
    if (world.rank() == 3) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the others wait already
      throw UserError("no such file");
    }
    try {
      group->barrier();
      world.barrier();
    } catch (const PeerError& error) {
      heard[static_cast<std::size_t>(world.rank())] = error.what();
    }
  };

  EXPECT_THROW(run_on_threads(4, body), UserError);

  const std::string reason = "rank 3 failed: no such file";
  EXPECT_EQ((std::vector<std::string>{reason, reason, reason, ""}), heard);
}

TEST(RunOnThreads, RankThatEndsEarlyDoesNotHangItsPeers) {
  const auto body = [](Communicator& world) {
    if (world.rank() != 1) world.barrier();
  };

  try {
    run_on_threads(3, body);
    FAIL() << "no error";
  } catch (const PeerError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("rank 0 called barrier, rank 1 left the group"));
  }
}

TEST(RunOnThreads, WorldsDoNotShareTheirFate) {
  const auto break_it = [](Communicator& world) { world.abandon("enough"); };
  const auto use_it = [](Communicator& world) { world.barrier(); };

  run_on_threads(2, break_it);

  EXPECT_NO_THROW(run_on_threads(2, use_it));
}

}  // namespace
}  // namespace lamina
