#include "launch/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace lamina {
namespace {

using testing::HasSubstr;

Status halfway() {
  return {.step = 500,
          .steps = 1000,
          .loss = 1.523,
          .gradient_norm = 0.83,
          .learning_rate = 2e-3,
          .tokens_per_second = 23449,
          .communication_share = 0.04,
          .seconds_left = 72};
}

RunSummary some_run() {
  return {.task = "text",
          .data = "text.txt",
          .training_characters = 1234567,
          .validation_characters = 1000,
          .vocabulary = 63,
          .data_ranks = 2,
          .model_ranks = 4,
          .lane_groups = 8,
          .unit_blocks = 16,
          .passes = 2,
          .transport = "mpi+shared-memory",
          .device = "a CPU",
          .model = "2-layer lstm",
          .parameters = 9876543,
          .megabytes_per_rank = 12.34,
          .batch = 32,
          .time_steps = 64,
          .steps = 1000,
          .first_step = 0,
          .checkpoint = "folder"};
}

/// What `work` writes to standard output.
template <class Work>
std::string output_of(const Work& work) {
  testing::internal::CaptureStdout();
  work();
  return testing::internal::GetCapturedStdout();
}

TEST(StatusLine, ShowsEveryFigureWithItsUnit) {
  EXPECT_EQ(status_line(halfway()),
            "[##########----------]  500/1000  loss 1.523 nats  2.197 bpc |  23.4k tok/s | norm   0.83 | "
            "lr 2.0e-03 | comm  4% | left 1m12s");
}

TEST(StatusLine, KeepsItsWidthThroughoutARun) {
  Status first = halfway(), last = halfway();
  first.step = 1;
  first.gradient_norm = 4321.5;
  first.tokens_per_second = 950;
  last.step = 1000;
  last.communication_share = 0.25;
  last.tokens_per_second = 123456;

  EXPECT_EQ(status_line(first).size(), status_line(halfway()).size());
  EXPECT_EQ(status_line(last).size(), status_line(halfway()).size());
  EXPECT_THAT(status_line(first), HasSubstr("[--------------------]    1/1000"));
  EXPECT_THAT(status_line(last), HasSubstr("[####################] 1000/1000"));
}

TEST(StatusLine, SurvivesFiguresThatAreNoNumbers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Status status{.loss = nan, .gradient_norm = nan, .tokens_per_second = nan, .seconds_left = nan};

  EXPECT_THAT(status_line(status), testing::AllOf(HasSubstr("loss nan nats"), HasSubstr("left ?")));
}

TEST(Duration, HasTwoUnitsAtMost) {
  EXPECT_EQ(duration_text(0), "0s");
  EXPECT_EQ(duration_text(44.2), "45s");
  EXPECT_EQ(duration_text(59.5), "1m00s");
  EXPECT_EQ(duration_text(72), "1m12s");
  EXPECT_EQ(duration_text(2 * 3600 + 5 * 60 + 59), "2h05m");
  EXPECT_EQ(duration_text(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(duration_text(INFINITY), "?");
  EXPECT_EQ(duration_text(-1), "?");
}

TEST(Summary, NamesGridLanesModelAndMemory) {
  const std::string text = summary_text(some_run());

  for (const char* fact :
       {"1,234,567 characters", "1,000 held out", "63 different", "2-layer lstm, 9,876,543 parameters",
        "2 data x 4 model ranks", "mpi+shared-memory", "16 unit blocks", "32 in 8 lane groups",
        "64 characters at a time", "in 2 passes", "a CPU each rank", "12.3 MB", "folder"})
    EXPECT_THAT(text, HasSubstr(fact));
}

TEST(Summary, AlignsItsFacts) {
  std::istringstream lines(summary_text(some_run()));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(line[14], ' ') << line;
    EXPECT_NE(line[15], ' ') << line;
  }
}

TEST(Summary, ChoosesTheUnitOfMemory) {
  const auto text_of = [](double megabytes) {
    RunSummary run = some_run();
    run.megabytes_per_rank = megabytes;
    return summary_text(run);
  };

  EXPECT_THAT(text_of(0.05), HasSubstr(" 50.0 kB each rank"));
  EXPECT_THAT(text_of(50), HasSubstr(" 50.0 MB each rank"));
  EXPECT_THAT(text_of(5000), HasSubstr(" 5.0 GB each rank"));
}

TEST(Summary, SaysWhereAResumedRunGoesOn) {
  RunSummary run = some_run();
  run.first_step = 400;

  EXPECT_THAT(summary_text(run), HasSubstr("1,000, going on from 400"));
}

TEST(Progress, PrintsPlainLines) {
  const std::string output = output_of([] {
    const Progress progress(/*shown=*/true);
    progress.status(halfway());
    progress.validation(500, std::log(2.0), 1234);
    progress.checkpoint_written("step-1.h5", 0.5, 0.0125, 2500000);
    progress.note("a note");
  });

  EXPECT_EQ(output, status_line(halfway()) +
                        "\n"
                        "validation at step 500: loss 0.693 nats  1.000 bpc, 1,234 predictions\n"
                        "checkpoint step-1.h5, 2.5 MB in 0.50 s, training waited 12.5 ms\n"
                        "a note\n");
}

TEST(Progress, IsSilentOnTheOtherRanks) {
  const std::string output = output_of([] {
    const Progress progress(/*shown=*/false);
    progress.summary(some_run());
    progress.status(halfway());
    progress.note("a note");
  });

  EXPECT_EQ(output, "");
}

}  // namespace
}  // namespace lamina
