// Kept inputs of the fuzzers, through the same harness: nothing but refusals and correct loads.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <iterator>

#include "tests/fuzz/harness.h"

// HDF5 itself leaks when it refuses what it is asked to write.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace lamina::fuzz {
namespace {

namespace fs = std::filesystem;

void replay(const std::string& name, void (*harness)(Bytes)) {
  int inputs = 0;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(fs::path(LAMINA_TEST_SOURCES) / "fuzz/corpus" / name)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    SCOPED_TRACE(entry.path().string());
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NO_THROW(harness(bytes));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
    ++inputs;
  }
  EXPECT_GT(inputs, 2);
}

TEST(Replay, Checkpoint) { replay("checkpoint", checkpoint); }
TEST(Replay, Structure) { replay("structure", structure); }
TEST(Replay, Text) { replay("text", text); }
TEST(Replay, Toml) { replay("toml", toml); }

}  // namespace
}  // namespace lamina::fuzz
