#include "io/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/error.h"
#include "tests/io/file_size_limit.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string content(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::int64_t> steps(const std::filesystem::path& file) {
  std::vector<std::int64_t> found;
  std::istringstream lines(content(file));
  for (std::string line; std::getline(lines, line);)
    found.push_back(nlohmann::json::parse(line).at("step").get<std::int64_t>());
  return found;
}

TrainingRecord training(std::int64_t step) {
  TrainingRecord record;
  record.step = step;
  return record;
}

/// What a person is told who gives this file; nothing where it is taken.
std::string refusal_of(const std::filesystem::path& file, std::optional<std::int64_t> resumed_step) {
  try {
    MetricsFile metrics(file, resumed_step);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Metrics, WritesOneObjectPerLineAtOnce) {
  const TemporaryFolder folder;
  MetricsFile metrics(folder / "m.jsonl", std::nullopt);

  metrics.write(TrainingRecord{10, 1.5, 0.25, 0.002, 3e4, 0.125, 7.5});
  metrics.write(ValidationRecord{10, 2.0, 1234, 8.0});

  std::istringstream lines(content(folder / "m.jsonl"));  // the file is still open for writing
  std::string first, second, none;
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_FALSE(std::getline(lines, none));
  EXPECT_EQ(nlohmann::json::parse(first), (nlohmann::json{{"step", 10},
                                                          {"loss", 1.5},
                                                          {"bits_per_character", 1.5 / std::log(2.0)},
                                                          {"gradient_norm", 0.25},
                                                          {"learning_rate", 0.002},
                                                          {"tokens_per_second", 3e4},
                                                          {"communication_share", 0.125},
                                                          {"seconds", 7.5}}));
  EXPECT_EQ(nlohmann::json::parse(second),
            (nlohmann::json{{"step", 10},
                            {"validation_loss", 2.0},
                            {"validation_bits_per_character", 2.0 / std::log(2.0)},
                            {"predictions", 1234},
                            {"seconds", 8.0}}));
}

TEST(Metrics, NonFiniteNumbersAreNull) {
  const TemporaryFolder folder;
  TrainingRecord record = training(1);
  record.loss = std::nan("");

  MetricsFile(folder / "m.jsonl", std::nullopt).write(record);

  EXPECT_TRUE(nlohmann::json::parse(content(folder / "m.jsonl")).at("loss").is_null());
}

TEST(Metrics, AResumedRunHasEachStepOnce) {
  const TemporaryFolder folder;
  {
    MetricsFile metrics(folder / "m.jsonl", std::nullopt);
    for (const int step : {1, 10, 20}) metrics.write(training(step));
    metrics.write(ValidationRecord{20, 2.0, 1, 1});
    metrics.write(training(30));
  }
  std::ofstream(folder / "m.jsonl", std::ios::app) << R"({"step": 15, "lo)";  // a torn write

  MetricsFile metrics(folder / "m.jsonl", 20);
  metrics.write(training(25));

  EXPECT_THAT(steps(folder / "m.jsonl"), ElementsAre(1, 10, 20, 20, 25));
}

TEST(Metrics, AResumedRunMayHaveNoFileYet) {
  const TemporaryFolder folder;

  MetricsFile(folder / "m.jsonl", 20).write(training(21));

  EXPECT_THAT(steps(folder / "m.jsonl"), ElementsAre(21));
}

TEST(Metrics, AFreshRunBeginsAnew) {
  const TemporaryFolder folder;
  MetricsFile(folder / "m.jsonl", std::nullopt).write(training(5));

  MetricsFile(folder / "m.jsonl", std::nullopt).write(training(1));

  EXPECT_THAT(steps(folder / "m.jsonl"), ElementsAre(1));
}

TEST(Metrics, ForeignFilesAreLeftAlone) {
  const TemporaryFolder folder;
  for (const std::string text : {"{\"step\": 1}\nmy notes\nmore notes\n", "my notes\n", "my notes"}) {
    std::ofstream(folder / "notes.txt") << text;

    for (const auto resumed_step : {std::optional<std::int64_t>(20), std::optional<std::int64_t>()})
      EXPECT_THAT(refusal_of(folder / "notes.txt", resumed_step), HasSubstr("is not a metrics file: line"));

    EXPECT_EQ(content(folder / "notes.txt"), text);
  }
}

TEST(Metrics, ARunThatWritesNoneLeavesThoseThatAreThere) {
  const TemporaryFolder folder;
  MetricsFile(folder / "m.jsonl", std::nullopt).write(training(5));
  const std::string before = content(folder / "m.jsonl");

  MetricsFile(folder / "m.jsonl", std::nullopt);
  MetricsFile(folder / "m.jsonl", 1);

  EXPECT_EQ(content(folder / "m.jsonl"), before);
}

TEST(Metrics, AFileThatCannotBeReadIsNoEmptyOne) {
  const std::filesystem::path memory = "/proc/self/mem";  // at its beginning there is nothing to be read
  if (!std::filesystem::exists(memory)) GTEST_SKIP() << "no " << memory;

  EXPECT_THAT(refusal_of(memory, 20), HasSubstr("cannot be read: Input/output error"));
}

TEST(Metrics, NoFileTakesRecordsNowhere) {
  MetricsFile metrics("", std::nullopt);

  EXPECT_NO_THROW(metrics.write(training(1)));
}

TEST(Metrics, AnUnwritablePathIsTheUsersError) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("loop", folder / "loop");

  EXPECT_THAT(refusal_of(folder / "none/m.jsonl", {}), HasSubstr("No such file or directory"));
  EXPECT_THAT(refusal_of(folder.path(), {}), HasSubstr(folder.path().string()));
  EXPECT_THAT(refusal_of(folder / "loop", 20), HasSubstr("Too many levels of symbolic links"));
}

TEST(Metrics, AFullDiskIsToldOnce) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  MetricsFile metrics("/dev/full", std::nullopt);

  EXPECT_THAT(metrics.write(training(1)), HasSubstr("/dev/full cannot be written: No space left on device"));
  EXPECT_EQ(metrics.write(training(2)), "");
}

TEST(Metrics, RecordsWaitUntilTheyCanBeWritten) {
  const TemporaryFolder folder;
  MetricsFile metrics(folder / "m.jsonl", std::nullopt);
  metrics.write(training(1));
  {
    const FileSizeLimit full(std::filesystem::file_size(folder / "m.jsonl") + 10);
    EXPECT_NE(metrics.write(training(2)), "");
    metrics.write(training(3));
  }

  EXPECT_EQ(metrics.write(training(4)), "");

  EXPECT_THAT(steps(folder / "m.jsonl"), ElementsAre(1, 2, 3, 4));
}

}  // namespace
}  // namespace lamina
