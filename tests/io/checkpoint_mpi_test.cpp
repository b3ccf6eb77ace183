// ctest: ranks=1,2,3,4
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "io/checkpoint.h"
#include "runtime/error.h"
#include "tests/io/file_size_limit.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/shared_folder.h"
#include "tests/support/mpi_main.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr CheckpointIo kBoth[] = {CheckpointIo::posix, CheckpointIo::mpi_io};

/// The message of the CheckpointWriteError that every rank must see alike.
std::string write_error(const std::function<void()>& write) {
  std::string message;
  try {
    write();
  } catch (const CheckpointWriteError& error) {
    message = error.what();
  }
  std::string first = message;
  mpi_test_world().broadcast(first, 0);
  EXPECT_EQ(message, first);
  return message;
}

TEST(CheckpointMpi, EverySplitGivesTheBytesOfASerialWrite) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  if (world.rank() == 0) write_sample(folder / "serial.h5");
  world.barrier();

  for (const CheckpointIo io : kBoth)
    for (const Owner& owner : {in_runs(world.size()), round_robin(world.size()), all_on(world.size() - 1)}) {
      SampleBoxes boxes(sample_layouts(), owner, world.rank());
      write_checkpoint(folder / "split.h5", sample_record(), boxes.to_write(), world, io);
      EXPECT_EQ(bytes_of(folder / "split.h5"), bytes_of(folder / "serial.h5"));
      EXPECT_FALSE(fs::exists(folder / "split.h5.partial"));
      world.barrier();
    }
}

// The ranks go on with other collectives while the I/O threads work.
TEST(CheckpointMpi, AStagedSaveGoesOnBetweenOtherCollectives) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  if (world.rank() == 0) write_sample(folder / "serial.h5");
  const SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());

  for (const CheckpointIo io : kBoth) {
    CheckpointSave save(folder / "staged.h5", sample_record(), boxes.to_write(), world, io);
    int advances = 0;
    while (!save.is_complete()) {
      std::int32_t idle = save.is_idle() ? 1 : 0;
      world.all_reduce(std::span(&idle, 1), Reduction::min);
      if (idle == 0) continue;
      EXPECT_FALSE(fs::exists(folder / "staged.h5") && advances == 0 && io == CheckpointIo::posix);
      save.advance();
      ++advances;
    }
    EXPECT_EQ(bytes_of(folder / "staged.h5"), bytes_of(folder / "serial.h5"));
    EXPECT_GT(advances, 2);
  }
  world.barrier();
}

TEST(CheckpointMpi, ReadsWhatAnotherSplitWrote) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  const SampleBoxes written(sample_layouts(), round_robin(world.size()), world.rank());
  write_checkpoint(folder / "a.h5", sample_record(), written.to_write(), world);

  SampleBoxes runs(sample_layouts(), in_runs(world.size()), world.rank());
  SampleBoxes whole(sample_layouts(), all_on(world.rank()), world.rank());
  read_checkpoint(folder / "a.h5", runs.to_read(), world);
  read_checkpoint(folder / "a.h5", whole.to_read(), world);

  EXPECT_TRUE(runs.is_right());
  EXPECT_TRUE(whole.is_right());
}

// Open MPI before 4.1.7 can write wrong bytes to small datasets, without an error, when transfers are
// collective: many small files, each verified bit by bit after it was committed.
TEST(CheckpointMpi, ManySmallFilesAreRight) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  std::vector<TensorLayout> layouts = {sample_layout("/parameters/a", {9, 12}, {9, 12, 1}),
                                       sample_layout("/parameters/b", {48, 12}, {4, 12, 12}),
                                       sample_layout("/parameters/c", {12}, {1, 12, 1}),
                                       sample_layout("/parameters/d", {97, 36}, {1, 97, 36}),
                                       sample_layout("/parameters/e", {10, 12}, {10, 12, 1}, 2)};
  int right = 0;
  for (int file = 0; file < 150; ++file) {
    const bool runs = file % 2 == 0;
    SampleBoxes boxes(layouts, runs ? in_runs(world.size()) : round_robin(world.size()), world.rank());
    CheckpointRecord record = sample_record();
    record.step = file;
    write_checkpoint(folder / "a.h5", record, boxes.to_write(), world);
    SampleBoxes whole(layouts, all_on(world.rank()), world.rank());
    read_checkpoint(folder / "a.h5", whole.to_read(), world);
    right += whole.is_right();
  }
  EXPECT_EQ(right, 150);
}

TEST(CheckpointMpi, OneFailingRankFailsAllAndTheOlderFileStays) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());
  write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), world);
  const std::string before = bytes_of(folder / "a.h5");
  const int last = world.size() - 1;

  auto tensors = boxes.to_write();
  if (world.rank() == last) tensors[0].boxes.back().values = tensors[0].boxes.back().values.first(1);
  EXPECT_THAT(write_error([&] { write_checkpoint(folder / "a.h5", sample_record(), tensors, world); }),
              HasSubstr("embedding/table has 1 elements"));

  tensors = boxes.to_write();
  if (world.rank() == last) tensors[5].boxes.clear();
  EXPECT_THAT(write_error([&] { write_checkpoint(folder / "a.h5", sample_record(), tensors, world); }),
              HasSubstr("0 ranks write box"));

  if (world.size() > 1) {
    CheckpointRecord record = sample_record();
    record.step += world.rank() == last;
    EXPECT_THAT(write_error([&] { write_checkpoint(folder / "a.h5", record, boxes.to_write(), world); }),
                HasSubstr("describe different checkpoints"));
  }

  EXPECT_EQ(bytes_of(folder / "a.h5"), before);
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
}

TEST(CheckpointMpi, AnUnwritableFolderFailsAllAlike) {
  Communicator& world = mpi_test_world();
  const SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());

  EXPECT_THAT(
      write_error([&] { write_checkpoint("/proc/none/a.h5", sample_record(), boxes.to_write(), world); }),
      AllOf(HasSubstr("/proc/none/a.h5"), HasSubstr("No such file or directory")));
}

TEST(CheckpointMpi, ARankWhoseWritesAreRefusedFailsAll) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  const SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());

  std::string message;
  {
    std::optional<FileSizeLimit> limit;
    if (world.rank() == world.size() - 1) limit.emplace(2000);
    message =
        write_error([&] { write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), world); });
  }

  if (world.size() == 1)  // found before anything is written
    EXPECT_THAT(message, HasSubstr("File too large"));
  else
    EXPECT_THAT(message, AllOf(HasSubstr(fmt::format("rank {}, /", world.size() - 1)),
                               HasSubstr("cannot write it: File too large")));
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
  EXPECT_FALSE(fs::exists(folder / "a.h5"));
  write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), world);
  EXPECT_TRUE(fs::exists(folder / "a.h5"));
}

TEST(CheckpointMpi, ADamagedTensorIsNamedToAllRanks) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());
  write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), world);
  if (world.rank() == 0) {  // the last number of the last box of lstm0/W_x, the second tensor of the sample
    std::string bytes = bytes_of(folder / "a.h5");
    const float number = 1 * 4096 + 255 + 0.25f;
    const auto place = bytes.find(std::string(reinterpret_cast<const char*>(&number), 4));
    ASSERT_NE(place, std::string::npos);
    bytes[place] = static_cast<char>(bytes[place] ^ 1);
    std::ofstream(folder / "a.h5", std::ios::binary) << bytes;
  }
  world.barrier();

  std::string message;
  try {
    read_checkpoint(folder / "a.h5", boxes.to_read(), world);
  } catch (const DamagedCheckpoint& error) {
    message = error.what();
  }

  EXPECT_THAT(message, AllOf(HasSubstr("/parameters/lstm0/W_x"), HasSubstr((folder / "a.h5").string())));
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) { return lamina::mpi_main(argc, argv); }
