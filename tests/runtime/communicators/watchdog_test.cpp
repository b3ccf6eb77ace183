// ctest: labels=unit,fault timeout=60
// The end of a process that cannot end itself; each test is a process of its own.
#include "runtime/communicators/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "runtime/communicators/crash_notice.h"
#include "runtime/communicators/process.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;

constexpr Call kSplit{.operation = Operation::split};
constexpr auto kPatience = 20s;

/// What this process, as rank 0 of two on one host, sees of the job.
class Pair {
 public:
  Pair() {
    Lookout lookout;
    for (int rank = 0; rank < 2; ++rank) {
      RankStatus& status = statuses_[static_cast<std::size_t>(rank)];
      status.introduce(rank);
      lookout.node.push_back(&status);
    }
    lookout.hosts = {"here", "here"};
    lookout.alarm = &alarm;
    watch = std::make_shared<Watch>(lookout);
    statuses_[1].open(kWorldGroup);
  }

 private:
  std::array<RankStatus, 2> statuses_;

 public:
  Alarm alarm;
  std::shared_ptr<Watch> watch;
};

class WatchdogDeathTest : public ::testing::Test {
 protected:
  WatchdogDeathTest() { ::testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(WatchdogDeathTest, EndsARankThatHangsInALibrary) {
  const auto hang = [] {
    Pair pair;
    pair.watch->set_deadline(100ms);
    pair.watch->status().note_step(3);
    WatchedGroup world(pair.watch, kWorldGroup, {0, 1});
    Watchdog watchdog(0, {.grace = 200ms, .end = kPatience});
    watchdog.watch_over(pair.watch);
    const BlindWait wait(world, kSplit);
    std::this_thread::sleep_for(kPatience);
  };

  EXPECT_EXIT(hang(), ::testing::ExitedWithCode(5),
              "lamina: rank 0 on .*: rank 1 on here did not come to split .world, step 3. within 0.1 s");
}

TEST_F(WatchdogDeathTest, EndsARankThatDoesNotEndAfterAnAlarm) {
  const auto hang = [] {
    Pair pair;
    Watchdog watchdog(0, {.grace = kPatience, .end = 200ms});
    watchdog.watch_over(pair.watch);
    pair.alarm.raise_failure(1, "the disk is full");
    std::this_thread::sleep_for(kPatience);
  };

  EXPECT_EXIT(hang(), ::testing::ExitedWithCode(5), "lamina: rank 0 on .*: rank 1 failed: the disk is full");
}

TEST_F(WatchdogDeathTest, LetsBeWhatIsInTime) {
  const auto wait = [] {
    Pair pair;
    pair.watch->set_deadline(kPatience);
    WatchedGroup world(pair.watch, kWorldGroup, {0, 1});
    Watchdog watchdog(0, {.grace = 0ms, .end = 0ms});
    watchdog.watch_over(pair.watch);
    {
      const BlindWait blind(world, kSplit);
      std::this_thread::sleep_for(1200ms);
    }
    pair.watch->set_deadline(1ms);
    std::this_thread::sleep_for(1200ms);
    watchdog.look_away();
    _exit(17);
  };

  EXPECT_EXIT(wait(), ::testing::ExitedWithCode(17), "");
}

TEST_F(WatchdogDeathTest, LastResortEndsWhatDoesNotEnd) {
  const auto end = [](std::chrono::milliseconds lasts) {
    {
      const LastResort limit(500ms, 7, "the end does not end");
      std::this_thread::sleep_for(lasts);
    }
    _exit(17);
  };

  EXPECT_EXIT(end(kPatience), ::testing::ExitedWithCode(7), "lamina: the end does not end");
  EXPECT_EXIT(end(0ms), ::testing::ExitedWithCode(17), "");
}

/// A process that mpirun's stands for: it starts a rank, whose words go to `said`, and ends.
[[noreturn]] void launch_and_end(int said) {
  if (fork() != 0) {
    std::this_thread::sleep_for(300ms);
    _exit(0);
  }
  dup2(said, STDERR_FILENO);
  close(said);
  setenv("PMIX_RANK", "3", 1);
  const Watchdog watchdog(3);
  std::this_thread::sleep_for(kPatience);
  _exit(17);
}

TEST(Watchdog, EndsARankWhoseLauncherHasEnded) {
  std::array<int, 2> ends{};
  ASSERT_EQ(0, pipe(ends.data()));
  const pid_t launcher = fork();
  ASSERT_NE(-1, launcher);
  if (launcher == 0) launch_and_end(ends[1]);
  close(ends[1]);
  const auto start = std::chrono::steady_clock::now();

  std::string said;
  for (char c = 0; read(ends[0], &c, 1) == 1;) said += c;  // until the rank has ended

  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience / 2);
  EXPECT_EQ("lamina: rank 3 on " + host_name() + ": mpirun has ended, and with it the job\n", said);
  close(ends[0]);
  waitpid(launcher, nullptr, 0);
}

bool failed(int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; }

TEST_F(WatchdogDeathTest, CrashSaysWhere) {
  const auto crash = [] {
    Pair pair;
    const CrashNotice notice(pair.watch->status());
    pair.watch->status().note_step(41);
    WatchedGroup world(pair.watch, kWorldGroup, {0, 1});
    world.enter(kSplit);
    world.leave();
    raise(SIGSEGV);
  };

  EXPECT_EXIT(crash(), failed, "lamina: rank 0 on .* crashed with SIGSEGV after split .world, step 41.");
}

TEST(ProcessState, TellsRunningStoppedAndEnded) {
  const pid_t child = fork();
  ASSERT_NE(-1, child);
  if (child == 0)
    for (;;) pause();

  kill(child, SIGSTOP);
  waitpid(child, nullptr, WUNTRACED);
  EXPECT_EQ('T', process_state(child));
  EXPECT_FALSE(has_ended(child));

  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_TRUE(has_ended(child)) << "dead, not yet buried";
  waitpid(child, nullptr, 0);
  EXPECT_EQ(0, process_state(child));
}

}  // namespace
}  // namespace lamina
