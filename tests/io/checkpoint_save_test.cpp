// Saves in stages: what is there, and what is not, at every point between two stages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "io/checkpoint.h"
#include "runtime/error.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

/// Stages of a save, counted by a run of one.
int stages() {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  const SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  CheckpointSave save(folder / "a.h5", sample_record(), boxes.to_write(), *self);
  int count = 0;
  for (; !save.is_complete(); ++count) save.advance();
  return count;
}

bool becomes_idle(const CheckpointSave& save) {
  for (int tries = 0; tries < 6000 && !save.is_idle(); ++tries) std::this_thread::sleep_for(10ms);
  return save.is_idle();
}

TEST(CheckpointSave, EndsEachStageWithoutTheMainThread) {
  const TemporaryFolder folder;
  write_sample(folder / "reference.h5");

  run_on_threads(3, [&](Communicator& world) {
    const SampleBoxes boxes(sample_layouts(), in_runs(3), world.rank());
    CheckpointSave save(folder / "a.h5", sample_record(), boxes.to_write(), world);
    while (!save.is_complete()) {
      EXPECT_TRUE(becomes_idle(save));
      world.barrier();
      save.advance();
    }
    EXPECT_TRUE(fs::exists(folder / "a.h5"));
    EXPECT_GT(save.cost().seconds, 0);
    EXPECT_GT(save.cost().bytes, 0);
  });

  EXPECT_EQ(bytes_of(folder / "a.h5"), bytes_of(folder / "reference.h5"));
}

TEST(CheckpointSave, GivenUpAnywhereLeavesTheOlderFileAndNothingElse) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");
  const std::string before = bytes_of(folder / "a.h5");
  CheckpointRecord later = sample_record();
  later.step += 1;
  const int all = stages();
  ASSERT_GE(all, 4);

  for (int passed = 0; passed < all - 2; ++passed) {  // in the last but one the file gets its name
    run_on_threads(2, [&](Communicator& world) {
      const SampleBoxes boxes(sample_layouts(), round_robin(2), world.rank());
      CheckpointSave save(folder / "a.h5", later, boxes.to_write(), world);
      for (int i = 0; i < passed; ++i) save.advance();
    });
    EXPECT_FALSE(fs::exists(folder / "a.h5.partial")) << "after " << passed << " stages";
    EXPECT_EQ(bytes_of(folder / "a.h5"), before) << "after " << passed << " stages";
  }
}

TEST(CheckpointSave, WorkThatFollowsSeesTheCheckpointAndMayFail) {
  const TemporaryFolder folder;
  bool there = false;
  run_on_threads(2, [&](Communicator& world) {
    const SampleBoxes boxes(sample_layouts(), in_runs(2), world.rank());
    CheckpointSave save(folder / "a.h5", sample_record(), boxes.to_write(), world);
    save.then([&] {
      there = fs::exists(folder / "a.h5");
      throw UserError("an older file cannot be removed");
    });
    save.finish();
    EXPECT_EQ(save.warning(), world.rank() == 0 ? "an older file cannot be removed" : "");
  });

  EXPECT_TRUE(there);
  EXPECT_NO_THROW(verify_checkpoint(folder / "a.h5"));
}

TEST(CheckpointSave, TheRecordMayGoWhileItIsWritten) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  const SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  auto record = std::make_unique<CheckpointRecord>(sample_record());
  CheckpointSave save(folder / "a.h5", *record, boxes.to_write(), *self);
  record.reset();

  save.finish();

  EXPECT_EQ(read_record(folder / "a.h5").step, sample_record().step);
}

TEST(CheckpointSave, NumbersThatChangeOnTheWayAreNoticed) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  CheckpointSave save(folder / "a.h5", sample_record(), boxes.to_write(), *self);
  ASSERT_TRUE(becomes_idle(save));
  boxes.values(4)[0] += 1;

  std::string message;
  try {
    save.finish();
  } catch (const CheckpointWriteError& error) {
    message = error.what();
  }

  EXPECT_THAT(message, HasSubstr("/parameters/lstm0/W_x does not match its digest"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointSave, ThroughMpiNeedsMpi) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  const SampleBoxes boxes(sample_layouts(), all_on(0), 0);

  EXPECT_THROW(
      write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), *self, CheckpointIo::mpi_io),
      CheckpointWriteError);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace lamina
