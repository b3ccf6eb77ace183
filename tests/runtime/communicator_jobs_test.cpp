// ctest: labels=mpi,program
// Whole jobs: this program starts mpirun over itself. Under mpirun it runs the disabled tests below, each of
// which ends badly on purpose; without, the tests of how that ends. Covers the harness of MPI tests too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "tests/support/mpi_main.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

bool is_rank_one() { return mpi_test_world().rank() == 1; }
void wait_for_all() { mpi_test_world().barrier(); }

TEST(Job, DISABLED_Passes) { wait_for_all(); }

TEST(Job, DISABLED_FailsSoftlyOnRankOne) {
  EXPECT_FALSE(is_rank_one()) << "said softly";
  wait_for_all();
}

TEST(Job, DISABLED_AssertsOnRankOneBeforeACollective) {
  ASSERT_FALSE(is_rank_one()) << "said in an assertion";
  wait_for_all();
}

TEST(Job, DISABLED_ThrowsOnRankOneInAGroup) {
  const auto group = mpi_test_world().split(0, 0);
  if (is_rank_one()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // rank 0 waits already
    throw std::runtime_error("said in an exception");
  }
  group->barrier();
}

TEST(Job, DISABLED_PassesAfterwards) { wait_for_all(); }

TEST(Job, DISABLED_RankOneAborts) {
  if (is_rank_one()) MpiSession::abort(7);
  wait_for_all();
}

TEST(Job, DISABLED_RankOneExits) {
  if (is_rank_one()) std::_Exit(9);
  wait_for_all();
}

TEST(Job, DISABLED_RankOneIsKilled) {
  if (is_rank_one()) std::raise(SIGKILL);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  wait_for_all();
}

TEST(Job, DISABLED_TellsItsTransport) {
  if (mpi_test_world().rank() == 0) std::printf("transport: %s\n", mpi_test_world().transport().c_str());
}

struct Ending {
  int code;
  std::string output;
};

constexpr int kKilledAfterTimeout = 124;

/// Runs the disabled tests of `filter` on two ranks, or as one process without mpirun.
Ending run_job(const std::string& filter, const std::string& environment = "", bool under_mpirun = true) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 "
      "LAMINA_TEST_JOB=1 " +
      environment + " timeout -k 5 60 " +
      (under_mpirun ? "mpirun -n 2 --oversubscribe --bind-to none " : "") + program +
      " --gtest_color=no --gtest_also_run_disabled_tests --gtest_filter=" + filter + " 2>&1";
  std::FILE* pipe = popen(command.c_str(), "r");
  Ending ending;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) ending.output += static_cast<char>(c);
  const int status = pclose(pipe);
  ending.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ending;
}

TEST(Harness, FailureOfRankOneAloneFailsTheProgram) {
  const Ending ending = run_job("Job.DISABLED_FailsSoftlyOnRankOne");

  EXPECT_EQ(1, ending.code);
  EXPECT_THAT(ending.output, HasSubstr("[rank 1] Job.DISABLED_FailsSoftlyOnRankOne failed"));
  EXPECT_THAT(ending.output, HasSubstr("said softly"));
  EXPECT_THAT(ending.output, HasSubstr("Some ranks had failures."));
}

TEST(Harness, RankThatGivesUpATestDoesNotHangItsPeers) {
  for (const char* transport : {"shared-memory", "mpi"}) {
    const Ending ending = run_job("Job.DISABLED_*sOnRankOne?*:Job.DISABLED_PassesAfterwards",
                                  std::string("LAMINA_TRANSPORT=") + transport);

    EXPECT_EQ(1, ending.code);
    EXPECT_THAT(ending.output, HasSubstr("[rank 1] Job.DISABLED_AssertsOnRankOneBeforeACollective failed"));
    EXPECT_THAT(ending.output, HasSubstr("said in an assertion"));
    EXPECT_THAT(ending.output, HasSubstr("[rank 1] Job.DISABLED_ThrowsOnRankOneInAGroup failed"));
    EXPECT_THAT(ending.output, HasSubstr("said in an exception"));
    EXPECT_THAT(ending.output, Not(HasSubstr("left the group"))) << "peers hear of the failure itself";
    EXPECT_THAT(ending.output, HasSubstr("[       OK ] Job.DISABLED_PassesAfterwards"));
  }
}

TEST(DyingRank, EndsTheJobWithItsCodeWhenItAborts) {
  EXPECT_EQ(7, run_job("Job.DISABLED_RankOneAborts").code);
}

TEST(DyingRank, EndsTheJobWhenItExitsOrIsKilled) {
  for (const char* test : {"Job.DISABLED_RankOneExits", "Job.DISABLED_RankOneIsKilled"}) {
    const Ending ending = run_job(test);

    EXPECT_NE(0, ending.code) << test;
    EXPECT_NE(kKilledAfterTimeout, ending.code) << test;
  }
}

TEST(TransportVariable, ChoosesTheTransport) {
  const std::string test = "Job.DISABLED_TellsItsTransport";

  const Ending untold = run_job(test);
  EXPECT_EQ(0, untold.code) << untold.output;
  EXPECT_THAT(untold.output, HasSubstr("transport: mpi+shared-memory\n"));
  EXPECT_THAT(run_job(test, "LAMINA_TRANSPORT=shared-memory").output,
              HasSubstr("transport: mpi+shared-memory\n"));
  EXPECT_THAT(run_job(test, "LAMINA_TRANSPORT=mpi").output, HasSubstr("transport: mpi\n"));
}

TEST(TransportVariable, RefusesOtherWordsAndEndsInOrder) {
  const Ending ending = run_job("Job.DISABLED_Passes", "LAMINA_TRANSPORT=pigeon");

  EXPECT_EQ(2, ending.code);
  EXPECT_THAT(ending.output, HasSubstr("LAMINA_TRANSPORT is \"pigeon\": use mpi or shared-memory"));
  EXPECT_THAT(ending.output, Not(HasSubstr("[ RUN")));
}

TEST(Session, WithoutMpirunIsAWorldOfOne) {
  const Ending ending = run_job("Job.DISABLED_TellsItsTransport", "", false);

  EXPECT_EQ(0, ending.code) << ending.output;
  EXPECT_THAT(ending.output, HasSubstr("transport: self\n"));
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  if (std::getenv("LAMINA_TEST_JOB") != nullptr) return lamina::mpi_main(argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
