// lamina benchmark exchange on ranks that are threads.
#include "launch/commands/benchmark/exchange.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

TEST(ExchangeBenchmark, RunsOnThreadsWithoutMpiToCompareWith) {
  const TemporaryFolder folder;
  ExchangeBenchmarkSettings settings{.samples = 2, .calls = 3, .json = folder / "figures.json"};

  run_on_threads(3, [&](Communicator& world) { benchmark_exchange(settings, world); });

  const nlohmann::json found = nlohmann::json::parse(std::ifstream(settings.json));
  EXPECT_EQ("threads", found["transport"]);
  EXPECT_EQ(3, found["ranks"]);
  EXPECT_TRUE(found["reference"].is_null());
  for (const nlohmann::json& exchange : found["exchanges"]) {
    EXPECT_TRUE(exchange["reference"].is_null()) << exchange;
    EXPECT_LT(0, exchange["microseconds"]["median"].get<double>()) << exchange;
  }
}

}  // namespace
}  // namespace lamina
