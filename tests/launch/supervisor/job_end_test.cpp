// What the end of mpirun means, and whether another start may help.
#include "launch/supervisor/job_end.h"

#include <gmock/gmock.h>

#include <csignal>

namespace lamina {
namespace {

using testing::HasSubstr;

int exited(int code) { return code << 8; }

TEST(JobEnd, WhatWouldEndTheSameWayIsNotStartedAgain) {
  for (const int code : {0, 2, 4, 6, 7}) {
    const JobEnd end = end_of_job(exited(code));
    EXPECT_FALSE(end.restart) << code;
    EXPECT_EQ(end.exit_code, code);
  }
}

TEST(JobEnd, AccidentsAreStartedAgain) {
  for (const int code : {1, 3, 5, 8}) {
    const JobEnd end = end_of_job(exited(code));
    EXPECT_TRUE(end.restart) << code;
    EXPECT_EQ(end.exit_code, code);
  }
}

TEST(JobEnd, ASignalIsNamed) {
  const JobEnd rank = end_of_job(exited(128 + SIGSEGV)), mpirun = end_of_job(SIGKILL);
  EXPECT_THAT(rank.words, testing::AllOf(HasSubstr("rank"), HasSubstr("SIGSEGV"), HasSubstr("139")));
  EXPECT_THAT(mpirun.words, testing::AllOf(HasSubstr("mpirun"), HasSubstr("SIGKILL")));
  for (const JobEnd& end : {rank, mpirun}) {
    EXPECT_TRUE(end.restart);
    EXPECT_EQ(end.exit_code, 5);
  }
}

TEST(JobEnd, OtherCodesAreThoseOfMpirun) {
  const JobEnd end = end_of_job(exited(205));
  EXPECT_THAT(end.words, testing::AllOf(HasSubstr("mpirun"), HasSubstr("205")));
  EXPECT_TRUE(end.restart);
  EXPECT_EQ(end.exit_code, 5);
}

}  // namespace
}  // namespace lamina
