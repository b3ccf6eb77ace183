#include "io/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/error.h"
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
    for (const int step : {1, 10, 20, 30}) metrics.write(training(step));
    metrics.write(ValidationRecord{20, 2.0, 1, 1});
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

TEST(Metrics, AResumedRunLeavesForeignFilesAlone) {
  const TemporaryFolder folder;
  const std::string text = "{\"step\": 1}\nmy notes\nmore notes\n";
  std::ofstream(folder / "notes.txt") << text;

  EXPECT_THROW(MetricsFile(folder / "notes.txt", 20), UserError);

  EXPECT_EQ(content(folder / "notes.txt"), text);
}

TEST(Metrics, NoFileTakesRecordsNowhere) {
  MetricsFile metrics("", std::nullopt);

  EXPECT_NO_THROW(metrics.write(training(1)));
}

TEST(Metrics, AnUnwritablePathIsTheUsersError) {
  const TemporaryFolder folder;
  const auto message = [](const std::filesystem::path& file) -> std::string {
    try {
      MetricsFile metrics(file, std::nullopt);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };

  EXPECT_THAT(message(folder / "none/m.jsonl"), HasSubstr("No such file or directory"));
  EXPECT_THAT(message(folder.path()), HasSubstr(folder.path().string()));
}

TEST(Metrics, AFullDiskIsNoticed) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  MetricsFile metrics("/dev/full", std::nullopt);

  EXPECT_THROW(metrics.write(training(1)), UserError);
}

}  // namespace
}  // namespace lamina
