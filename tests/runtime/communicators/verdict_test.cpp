#include "runtime/communicators/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lamina {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr Call kGather{.operation = Operation::all_gather, .type = ElementType::float32, .count = 8};
constexpr Call kBarrier{.operation = Operation::barrier};

/// Ranks 0 and 1 on "a", 2 and 3 on "b"; all in the world, where they have made the same calls.
class VerdictTest : public ::testing::Test {
 protected:
  VerdictTest() {
    situation_.limit = 30s;
    situation_.hosts = {"a", "a", "b", "b"};
    for (int rank = 0; rank < 4; ++rank) {
      RankReport report{.rank = rank, .pid = 4700 + rank, .process = 'R'};
      report.groups[0] = {.id = kWorldGroup, .waits = 5, .name = {"world"}, .last = {kGather, 41}};
      situation_.ranks.emplace_back(report);
    }
  }

  RankReport& rank(int number) { return *situation_.ranks[static_cast<std::size_t>(number)]; }
  void waits(int number, const Call& call) {
    RankReport& report = rank(number);
    report.is_waiting = true;
    ++report.groups[0].waits;
    report.groups[0].last = {call, 42};
  }
  Verdict verdict() const { return judge(situation_); }

  Situation situation_;
};

TEST_F(VerdictTest, NamesWhoIsStopped) {
  for (const int number : {0, 1, 2}) waits(number, kBarrier);
  rank(3).process = 'T';

  const Verdict verdict = this->verdict();

  EXPECT_EQ(
      "rank 3 on b (process 4703, stopped) did not come to barrier (world, step 42) within 30 s; its last "
      "call "
      "was all_gather of 8 float32 (world, step 41); ranks 0-2 wait in barrier (world, step 42)",
      verdict.sentence);
  EXPECT_THAT(verdict.blamed, ElementsAre(3));
}

TEST_F(VerdictTest, NamesTheEarliestCallThatWasMissed) {
  for (const int number : {0, 2}) waits(number, kBarrier);
  for (const int number : {1, 3})
    rank(number).groups[4] = {.id = 77, .waits = 2, .name = {"data axis"}, .last = {kGather, 40}};
  rank(1).is_waiting = true;
  rank(1).latest = 4;
  rank(1).groups[4].waits = 3;
  rank(3).process = 'T';

  EXPECT_THAT(verdict().sentence, HasSubstr("did not come to all_gather of 8 float32 (data axis, step 40)"));
}

TEST_F(VerdictTest, BlamesTheStoppedBeforeTheBusy) {
  waits(0, kBarrier);
  rank(3).process = 'T';

  EXPECT_THAT(verdict().sentence, StartsWith("rank 3 on b"));
}

TEST_F(VerdictTest, TellsDisksAndDeathApart) {
  for (const int number : {0, 1, 2}) waits(number, kBarrier);

  rank(3).process = 'D';
  EXPECT_THAT(verdict().sentence, HasSubstr("(process 4703, waiting for a disk or a network file system)"));
  rank(3).process = '\0';
  EXPECT_THAT(verdict().sentence, HasSubstr("(process 4703, ended)"));
}

TEST_F(VerdictTest, NamesWhoStoppedWithinTheExchange) {
  for (const int number : {0, 1, 2, 3}) waits(number, kBarrier);
  rank(2).process = 'T';

  EXPECT_THAT(verdict().sentence,
              StartsWith("rank 2 on b (process 4702, stopped) did not get through barrier (world, step 42)"));
}

TEST_F(VerdictTest, NamesHostsWithoutAWord) {
  for (const int number : {0, 1}) waits(number, kBarrier);
  situation_.ranks[2].reset();
  situation_.ranks[3].reset();

  const Verdict verdict = this->verdict();

  EXPECT_EQ(
      "no word from ranks 2 and 3 on b within 30 s: stuck, or their host or the link to it is down; ranks 0 "
      "and "
      "1 wait in barrier (world, step 42)",
      verdict.sentence);
  EXPECT_THAT(verdict.blamed, ElementsAre(2, 3));
}

TEST_F(VerdictTest, BlamesALinkWhereAllHaveCome) {
  for (const int number : {0, 1, 2, 3}) waits(number, kBarrier);

  EXPECT_THAT(verdict().sentence,
              StartsWith("all ranks came to barrier (world, step 42) but its messages did not"));
}

TEST_F(VerdictTest, FollowsFromGroupToGroup) {
  waits(0, kBarrier);
  waits(1, kBarrier);
  rank(3).process = 'S';
  for (const int number : {2, 3})
    rank(number).groups[4] = {.id = 77, .waits = 2, .name = {"model axis"}, .last = {kGather, 41}};
  rank(2).is_waiting = true;
  rank(2).latest = 4;
  rank(2).groups[4].waits = 3;
  for (RankReport* other : {&rank(0), &rank(1)}) other->process = 'R';

  EXPECT_THAT(verdict().sentence, AllOf(StartsWith("rank 3 on b (process 4703, asleep) did not come to"),
                                        HasSubstr("rank 2 waits in")));
}

TEST(ListOfRanks, JoinsNeighbours) {
  EXPECT_EQ("rank 3", list_of_ranks({3}));
  EXPECT_EQ("ranks 1 and 2", list_of_ranks({1, 2}));
  EXPECT_EQ("ranks 0-4, 7 and 9", list_of_ranks({0, 1, 2, 3, 4, 7, 9}));
}

}  // namespace
}  // namespace lamina
