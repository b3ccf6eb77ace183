// ctest: ranks=3,4
// Open MPI before 4.1.7 writes wrong bytes to small datasets, without an error, when transfers are collective
// and several ranks gather data for the others. These tests force such ranks and expect every byte to be
// right.
#include <gtest/gtest.h>
#include <stdlib.h>

#include "io/checkpoint.h"
#include "io/checkpoint/mpi_io_doubt.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/shared_folder.h"
#include "tests/support/mpi_main.h"

namespace lamina {
namespace {

/// Datasets of 0.5 to 10 KiB with odd sizes, split by rows, by columns, in strides and in lanes.
std::vector<TensorLayout> small_layouts() {
  return {sample_layout("/parameters/a", {9, 12}, {9, 12, 1}),
          sample_layout("/parameters/b", {48, 12}, {4, 12, 12}),
          sample_layout("/parameters/c", {131}, {1, 131, 1}),
          sample_layout("/parameters/d", {97, 25}, {1, 97, 25}),
          sample_layout("/parameters/e", {64, 36}, {64, 36, 1}),
          sample_layout("/parameters/f", {10, 12}, {10, 12, 1}, 2)};
}

/// Of `files` checkpoints, those whose every number came back.
int right_files(CheckpointIo io, int files) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  int right = 0;
  for (int file = 0; file < files; ++file) {
    const Owner owner = file % 2 == 0 ? in_runs(world.size()) : round_robin(world.size());
    const SampleBoxes boxes(small_layouts(), owner, world.rank());
    CheckpointRecord record = sample_record();
    record.step = file;
    try {
      write_checkpoint(folder / "a.h5", record, boxes.to_write(), world, io);
      SampleBoxes whole(small_layouts(), all_on(world.rank()), world.rank());
      read_checkpoint(folder / "a.h5", whole.to_read(), world);
      right += whole.is_right() && read_record(folder / "a.h5").step == file;
    } catch (const CheckpointWriteError& error) {
      ADD_FAILURE() << error.what();
    }
    world.barrier();
  }
  return right;
}

TEST(CheckpointAggregators, SmallDatasetsAreRightByTheSystemsCalls) {
  EXPECT_EQ(right_files(CheckpointIo::posix, 60), 60);
}

TEST(CheckpointAggregators, SmallDatasetsAreRightThroughMpiIo) {
  EXPECT_EQ(right_files(CheckpointIo::mpi_io, 100), 100);
}

TEST(CheckpointAggregators, TheProbeFindsNothingWrongAndLeavesNothing) {
  const SharedFolder folder;
  EXPECT_NO_THROW(probe_parallel_io((folder / "").parent_path(), mpi_test_world()));
  mpi_test_world().barrier();
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

TEST(MpiIoDoubt, FallsOnTheVersionsThatAreKnown) {
  for (const char* version : {"Open MPI v4.1.4, package: Debian OpenMPI", "Open MPI v4.1.6",
                              "Open MPI v3.1.0", "Open MPI v5.0.5, package", "Open MPI of my own"})
    EXPECT_TRUE(checkpoint::is_in_doubt(version)) << version;
  for (const char* version : {"Open MPI v4.1.7", "Open MPI v4.2.0", "Open MPI v5.0.6, package",
                              "Open MPI v5.1.0a1", "MPICH Version: 4.0.2"})
    EXPECT_FALSE(checkpoint::is_in_doubt(version)) << version;
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  const char* ranks = getenv("OMPI_COMM_WORLD_SIZE");
  const std::string gathering = std::to_string((ranks != nullptr ? atoi(ranks) : 1) - 1);
  setenv("OMPI_MCA_io_ompio_num_aggregators", gathering.c_str(), 1);
  return lamina::mpi_main(argc, argv);
}
