// A checkpoint of a stranger whose configuration asks for a larger model than the file holds.
#include "launch/stored_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/error.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

using ::testing::HasSubstr;

/// What is said of the sample with this configuration, or nothing when it is taken.
std::string refusal(const std::string& configuration, int unit_blocks = kSampleBlocks) {
  const TemporaryFolder folder;
  CheckpointRecord record = sample_record();
  record.configuration = configuration;
  record.unit_blocks = unit_blocks;
  write_sample(folder / "a.h5", record);
  try {
    const ModelSettings model = stored_model(folder / "a.h5", read_record(folder / "a.h5"));
    EXPECT_EQ(model.hidden, 8);
    EXPECT_EQ(model.embedding, 8);
    EXPECT_EQ(model.layers, 1);
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::AnyOf(HasSubstr((folder / "a.h5").string()), HasSubstr("--layers")));
    return error.what();
  } catch (const DamagedCheckpoint& error) {
    return error.what();
  }
  return "";
}

TEST(StoredModel, IsTakenWhenTheFileHoldsIt) {
  EXPECT_EQ(refusal("hidden = 8\nembedding = 8\nlayers = 1\n"), "");
}

TEST(StoredModel, OtherSizesAreRefused) {
  EXPECT_THAT(refusal("hidden = 2000000000\nembedding = 8\n"), HasSubstr("[9, 2000000000] is missing"));
  EXPECT_THAT(refusal("hidden = 8\nembedding = 1000000\n"), HasSubstr("/parameters/embedding/table"));
  EXPECT_THAT(refusal("hidden = 8\nembedding = 8\nlayers = 2000000000\n"),
              HasSubstr("/parameters/lstm1/W_h"));
  EXPECT_THAT(refusal("hidden = -8\nembedding = 8\n"), HasSubstr("is missing"));
  EXPECT_THAT(refusal("hidden = 8\nembedding = 8\nlayers = 0\n"), HasSubstr("--layers"));
}

TEST(StoredModel, BlocksThatCannotBeAreRefused) {
  const std::string good = "hidden = 8\nembedding = 8\n";
  EXPECT_THAT(refusal(good, 3), HasSubstr("3 unit blocks"));
  EXPECT_THAT(refusal(good, 1 << 30), HasSubstr("unit blocks"));
}

}  // namespace
}  // namespace lamina
