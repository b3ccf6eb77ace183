// io/README.md against a real file: its names, types and attributes, and its examples as they stand there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

TEST(CheckpointH5py, FindsWhatTheReadmeSays) {
  const TemporaryFolder folder;
  write_sample(folder / "sample.h5");
  const fs::path here = fs::path(LAMINA_TEST_SOURCES) / "io";
  const std::string python =
      fs::exists("/usr/bin/python3") ? "/usr/bin/python3" : "python3";  // Debian's has h5py

  const std::string command = python + " " + (here / "check_with_h5py.py").string() + " " +
                              (here / "../../io/README.md").string() + " " + (folder / "sample.h5").string() +
                              " > " + (folder / "log").string() + " 2>&1";
  const int result = std::system(command.c_str());

  const std::string log = bytes_of(folder / "log");
  std::printf("%s", log.c_str());
  if (log.find("SKIPPED-ALL") != std::string::npos) GTEST_SKIP() << "no h5py";
  EXPECT_EQ(result, 0);
  EXPECT_THAT(log, ::testing::HasSubstr("as specified"));
}

}  // namespace
}  // namespace lamina
