// ctest: labels=unit,fault timeout=60
// Deadlines of collectives between thread ranks: who is late is named, on all ranks alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/communicator.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kLimit = 200ms;
constexpr auto kPatience = 30s;  // of the test itself

/// How many ranks have heard that the job is lost.
using Losses = std::atomic<int>;

struct Heard {
  std::vector<std::string> texts;
  int speakers = 0;
};

/// Runs `body` on threads and notes what the ranks hear; one that hears of no error leaves "".
Heard hear(int ranks, const std::function<void(Communicator&, Losses&)>& body) {
  std::vector<std::string> texts(static_cast<std::size_t>(ranks));
  std::atomic<int> speakers = 0;
  Losses losses = 0;
  run_on_threads(ranks, [&](Communicator& world) {
    world.set_deadline(kLimit);
    try {
      body(world, losses);
    } catch (const PeerError& error) {
      texts[static_cast<std::size_t>(world.rank())] = error.what();
      speakers += error.speaks_first() ? 1 : 0;
      ++losses;
    }
  });
  return {texts, speakers};
}

/// Until the others have given up.
void stay_away(Communicator& world, const Losses& losses) {
  for (auto waited = 0ms; losses == 0 && waited < kPatience; waited += 5ms) std::this_thread::sleep_for(5ms);
  world.barrier();
}

void gather(Communicator& group, std::size_t count) {
  const std::vector<float> part(count);
  std::vector<float> out(count * static_cast<std::size_t>(group.size()));
  group.all_gather(std::span<const float>(part), std::span(out));
}

void sum(Communicator& group, std::size_t count) {
  std::vector<float> values(count);
  group.all_reduce(std::span(values));
}

TEST(Deadline, NamesTheRankThatDoesNotCome) {
  const Heard heard = hear(4, [](Communicator& world, Losses& losses) {
    world.note_step(41);
    sum(world, 32);
    if (world.rank() == 2) return stay_away(world, losses);
    gather(world, 512);
  });

  EXPECT_THAT(heard.texts, Each(heard.texts[0]));
  EXPECT_THAT(
      heard.texts[0],
      AllOf(HasSubstr("rank 2 on "),
            HasSubstr("did not come to all_gather of 512 float32 (world, step 41) within 0.2 s; its last "
                      "call was all_reduce (sum) of 32 float32 (world, step 41); ranks 0, 1 and 3 wait in "
                      "all_gather of 512 float32 (world, step 41)")));
  EXPECT_EQ(1, heard.speakers);
}

TEST(Deadline, FindsTheCulpritBehindThoseWhoWaitForIt) {
  const Heard heard = hear(3, [](Communicator& world, Losses& losses) {
    const auto first = world.split(world.rank() <= 1 ? 0 : 1, 0, "data axis");
    const auto second = world.split(world.rank() >= 1 ? 0 : 1, 0, "model axis");
    world.note_step(7);
    if (world.rank() != 0) world.set_deadline(kPatience);  // rank 0, the farthest, is to find out
    if (world.rank() == 2) return stay_away(world, losses);
    if (world.rank() == 1) return gather(*second, 8);
    sum(*first, 3);
  });

  EXPECT_THAT(heard.texts,
              Each(AllOf(HasSubstr("rank 2 on "),
                         HasSubstr("did not come to all_gather of 8 float32 (model axis, step 7)"),
                         HasSubstr("rank 0 waits in all_reduce (sum) of 3 float32 (data axis, step 7)"),
                         HasSubstr("rank 1 waits in all_gather of 8 float32 (model axis, step 7)"))));
}

TEST(Deadline, TellsOfRanksThatWaitForEachOther) {
  const Heard heard = hear(3, [](Communicator& world, Losses&) {
    const auto group = world.split(0, 0, "others");
    (world.rank() == 1 ? *group : world).barrier();
  });

  EXPECT_THAT(heard.texts, Each(AllOf(HasSubstr("ranks wait for each other for 0.2 s"),
                                      HasSubstr("ranks 0 and 2 wait in barrier (world)"),
                                      HasSubstr("rank 1 waits in barrier (others)"))));
}

TEST(Deadline, HoldsForTheRootOfABroadcast) {
  const Heard heard = hear(4, [](Communicator& world, Losses& losses) {
    const auto half = world.split(world.rank() / 2, 0, "half");
    std::vector<float> values(5);
    if (world.rank() == 3) return stay_away(world, losses);
    half->broadcast(std::span(values), 1);
    world.barrier();
  });

  EXPECT_THAT(heard.texts[2], HasSubstr("broadcast of 5 float32 from rank 3 (half)"));
}

TEST(Deadline, HoldsWhereAGroupEnds) {
  const Heard heard = hear(2, [](Communicator& world, Losses& losses) {
    if (world.rank() == 1) return stay_away(world, losses);
    const auto group = world.split(0, 0);
  });

  EXPECT_THAT(heard.texts[0], HasSubstr("rank 1 on "));
  EXPECT_THAT(heard.texts[0],
              HasSubstr("did not come to split (world) within 0.2 s; it has made no call yet"));
}

TEST(Deadline, IsOfOneExchangeNotOfAll) {
  const Heard heard = hear(2, [](Communicator& world, Losses&) {
    world.set_deadline(2s);
    for (int i = 0; i < 4; ++i) {
      if (world.rank() == 1) std::this_thread::sleep_for(600ms);
      world.barrier();
    }
  });

  EXPECT_THAT(heard.texts, Each(""));
}

TEST(Deadline, NoneMeansForEver) {
  const Heard heard = hear(2, [](Communicator& world, Losses&) {
    world.set_deadline(0s);
    if (world.rank() == 1) std::this_thread::sleep_for(2 * kLimit);
    world.barrier();
  });

  EXPECT_THAT(heard.texts, Each(""));
}

TEST(DeadlineScope, HoldsForAllGroupsWhileItLives) {
  const Heard heard = hear(2, [](Communicator& world, Losses& losses) {
    const auto group = world.split(0, 0);
    {
      const DeadlineScope scope(world, 10s);
      EXPECT_EQ(10s, group->deadline());
      if (world.rank() == 1) std::this_thread::sleep_for(2 * kLimit);
      group->barrier();
    }
    EXPECT_EQ(kLimit, group->deadline());
    if (world.rank() == 1) return stay_away(world, losses);
    group->barrier();
  });

  EXPECT_THAT(heard.texts, Each(HasSubstr("did not come to barrier (group) within 0.2 s")));
}

TEST(Deadline, LeavesOtherErrorsAlone) {
  const Heard heard = hear(2, [](Communicator& world, Losses&) {
    if (world.rank() == 1) world.abandon("the disk is full");
    world.barrier();
  });

  EXPECT_THAT(heard.texts, Each("rank 1 failed: the disk is full"));
  EXPECT_EQ(0, heard.speakers) << "the rank that fails says why";
}

TEST(Deadline, NobodySpeaksFirstWhereCallsDiffer) {
  const Heard heard = hear(4, [](Communicator& world, Losses&) {
    if (world.rank() == 3) return world.barrier();
    gather(world, 2);
  });

  EXPECT_EQ(0, heard.speakers) << "the rank that went astray may say why";
}

}  // namespace
}  // namespace lamina
