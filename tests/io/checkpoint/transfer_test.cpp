#include "io/checkpoint/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/checkpoint/skeleton.h"
#include "tests/io/file_size_limit.h"
#include "tests/io/temporary_folder.h"

namespace lamina::checkpoint {
namespace {

using ::testing::HasSubstr;

// HDF5 1.10 leaves a file open for ever, and crashes at exit, when the disk refuses its metadata. A skeleton
// has all metadata on the disk, so that only numbers can still be refused.
TEST(Transfer, ARefusedWriteIsAnErrorAndTheFileStillCloses) {
  const TemporaryFolder folder;
  std::vector<DescribedTensor> tensors = {
      {{"/parameters/x", {1000, 1000}, 1000, 1000, 1, 1, 2}, std::vector<Digest>(2)}};
  create_skeleton(folder / "a.h5", CheckpointRecord{}, tensors);
  const std::vector<float> values(500'000, 1.0f);
  const hdf5::Section section;
  const hdf5::Handle access = hdf5::serial_write_access();
  hdf5::Handle file = hdf5::open_file(folder / "a.h5", H5F_ACC_RDWR, access);

  std::string message;
  {
    const FileSizeLimit limited(100'000);
    hdf5::Handle dataset = hdf5::open_dataset(file, "/parameters/x");
    try {
      write_box(dataset, tensors[0].layout, 0, 1, values);
    } catch (const hdf5::Error& error) {
      message = error.what();
    }
    EXPECT_NO_THROW(hdf5::finish(file));
  }

  EXPECT_THAT(message, HasSubstr("cannot write /parameters/x: File too large"));
}

TEST(Skeleton, TakesThePlaceOfItsNumbers) {
  const TemporaryFolder folder;
  std::vector<DescribedTensor> tensors = {
      {{"/parameters/x", {1000, 1000}, 1000, 1000, 1, 1, 2}, std::vector<Digest>(2)}};

  create_skeleton(folder / "a.h5", CheckpointRecord{}, tensors);

  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(folder / "a.h5"));
  EXPECT_GT(size, 4'000'000);
  EXPECT_LE(size, file_size_bound(CheckpointRecord{}, tensors));
}

TEST(Skeleton, BoundHoldsForManyTensorsAndLongTexts) {
  const TemporaryFolder folder;
  CheckpointRecord record;
  record.configuration.assign(60'000, 'x');
  record.vocabulary.assign(100'000, U'x');
  std::vector<DescribedTensor> tensors;
  for (int i = 100; i < 700; ++i) {
    const std::string path =
        "/parameters/a_long_folder_name_" + std::to_string(i) + "/" + std::string(150, 'n');
    tensors.push_back({{path, {7}, 1, 7, 1, 1, 64}, std::vector<Digest>(64)});
  }

  EXPECT_NO_THROW(create_skeleton(folder / "a.h5", record, tensors));  // checks the bound itself
}

}  // namespace
}  // namespace lamina::checkpoint
