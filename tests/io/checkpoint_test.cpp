#include "io/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "runtime/error.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void expect_sample_record(const CheckpointRecord& record) {
  const CheckpointRecord expected = sample_record();
  EXPECT_EQ(record.step, expected.step);
  EXPECT_EQ(record.seed, expected.seed);
  EXPECT_EQ(record.lane_groups, expected.lane_groups);
  EXPECT_EQ(record.unit_blocks, expected.unit_blocks);
  EXPECT_EQ(record.batch, expected.batch);
  EXPECT_EQ(record.epoch, expected.epoch);
  EXPECT_EQ(record.chunk, expected.chunk);
  EXPECT_EQ(record.validation_loss, expected.validation_loss);
  EXPECT_EQ(record.configuration, expected.configuration);
  EXPECT_EQ(record.vocabulary, expected.vocabulary);
  EXPECT_EQ(record.build, expected.build);
  EXPECT_EQ(record.text_digest, expected.text_digest);
}

TEST(Checkpoint, ComesBackOnOneRank) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  SampleBoxes boxes(sample_layouts(), all_on(0), 0);

  const CheckpointCost cost = write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), *self);
  read_checkpoint(folder / "a.h5", boxes.to_read(), *self);

  EXPECT_TRUE(boxes.is_right());
  expect_sample_record(read_record(folder / "a.h5"));
  EXPECT_EQ(cost.bytes, 4 * (3 * (72 + 2 * 256 + 3 * 32 + 2 * 8 + 72 + 9) + 2 * 64));
  EXPECT_GT(cost.seconds, 0);
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
}

TEST(Checkpoint, SplitsOfAllKindsGiveTheSameBytesAndReadEachOther) {
  const TemporaryFolder folder;
  write_sample(folder / "reference.h5");
  const std::string reference = bytes_of(folder / "reference.h5");

  for (const int ranks : {1, 2, 3, 4})
    for (const Owner& owner : {in_runs(ranks), round_robin(ranks), all_on(ranks - 1)}) {
      run_on_threads(ranks, [&](Communicator& world) {
        SampleBoxes boxes(sample_layouts(), owner, world.rank());
        write_checkpoint(folder / "split.h5", sample_record(), boxes.to_write(), world);
        read_checkpoint(folder / "reference.h5", boxes.to_read(), world);
        EXPECT_TRUE(boxes.is_right()) << ranks << " ranks";
      });
      EXPECT_EQ(bytes_of(folder / "split.h5"), reference) << ranks << " ranks";
    }
}

TEST(Checkpoint, OneFileMayBeReadByManyAndInPart) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");

  run_on_threads(3, [&](Communicator& world) {
    std::vector<TensorLayout> some = {sample_layouts()[3], sample_layouts()[1]};
    SampleBoxes boxes(some, all_on(world.rank()), world.rank());
    const auto expected = boxes.to_write()[1].boxes[2].values;
    const std::vector<float> copy(expected.begin(), expected.end());
    EXPECT_NO_THROW(read_checkpoint(folder / "a.h5", boxes.to_read(), world));
    EXPECT_EQ(boxes.values(6).size(), copy.size());
  });
}

TEST(Checkpoint, ReplacesAnOlderFileOfItsName) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");
  CheckpointRecord later = sample_record();
  later.epoch = 4;

  write_sample(folder / "a.h5", later);

  EXPECT_EQ(read_record(folder / "a.h5").epoch, 4);
}

TEST(Checkpoint, TakesAnEmptyRecord) {
  const TemporaryFolder folder;
  CheckpointRecord record;

  write_sample(folder / "a.h5", record);

  const CheckpointRecord back = read_record(folder / "a.h5");
  EXPECT_EQ(back.configuration, "");
  EXPECT_EQ(back.validation_loss, std::nullopt);
  EXPECT_THAT(back.vocabulary, IsEmpty());
}

TEST(Checkpoint, TakesALongConfiguration) {
  const TemporaryFolder folder;
  CheckpointRecord record = sample_record();
  record.configuration.assign(60'000, 'x');

  write_sample(folder / "a.h5", record);

  EXPECT_EQ(read_record(folder / "a.h5").configuration, record.configuration);

  record.configuration += 'x';
  EXPECT_THROW(write_sample(folder / "b.h5", record), CheckpointWriteError);
}

TEST(Checkpoint, VerifyTellsWhatIsInside) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");

  const CheckpointSummary summary = verify_checkpoint(folder / "a.h5");

  expect_sample_record(summary.record);
  EXPECT_EQ(summary.tensors.size(), sample_layouts().size());
  const auto bias_c = std::ranges::find(summary.tensors, "/parameters/lstm0/bias_c", &TensorSummary::path);
  ASSERT_NE(bias_c, summary.tensors.end());  // the eighth tensor of the sample
  EXPECT_THAT(bias_c->shape, ElementsAre(8));
  EXPECT_EQ(bias_c->minimum, 7 * 4096 + 0.25);
  EXPECT_EQ(bias_c->maximum, 7 * 4096 + 7.25);
  EXPECT_EQ(bias_c->mean, 7 * 4096 + 3.75);
  EXPECT_EQ(bias_c->digest.size(), 32u);
  EXPECT_EQ(summary.root_digest.size(), 32u);
}

TEST(Checkpoint, RootDigestCoversTheRecordAndEveryNumber) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  std::vector<std::string> roots;
  const auto keep_root = [&](const CheckpointRecord& record) {
    write_checkpoint(folder / "a.h5", record, boxes.to_write(), *self);
    roots.push_back(verify_checkpoint(folder / "a.h5").root_digest);
  };

  const CheckpointRecord plain = sample_record();
  keep_root(plain);
  keep_root(plain);
  EXPECT_EQ(roots[0], roots[1]);
  roots.pop_back();
  const std::vector<std::function<void(CheckpointRecord&)>> changes = {
      [](auto& r) { ++r.step; },
      [](auto& r) { ++r.seed; },
      [](auto& r) { r.lane_groups *= 2; },
      [](auto& r) { r.unit_blocks *= 2; },
      [](auto& r) { r.batch *= 2; },
      [](auto& r) { ++r.epoch; },
      [](auto& r) { ++r.chunk; },
      [](auto& r) { r.configuration += " "; },
      [](auto& r) { r.validation_loss = 1.5; },
      [](auto& r) { r.validation_loss.reset(); },
      [](auto& r) { r.build += " "; },
      [](auto& r) { r.vocabulary.push_back(0x1F601); }};
  for (const auto& change : changes) {
    CheckpointRecord record = plain;
    change(record);
    keep_root(record);
  }
  boxes.values(40)[0] += 1;
  keep_root(plain);

  std::ranges::sort(roots);
  EXPECT_EQ(std::ranges::adjacent_find(roots), roots.end());
  EXPECT_EQ(roots.size(), changes.size() + 2);
}

// Files of programs that did not keep it, and programs that do not know it, agree on the root digest.
TEST(Checkpoint, TheDigestOfTheTextMayBeMissing) {
  const TemporaryFolder folder;
  const auto self = make_self_communicator();
  SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  CheckpointRecord record = sample_record();
  write_checkpoint(folder / "with.h5", record, boxes.to_write(), *self);
  record.text_digest.clear();
  write_checkpoint(folder / "without.h5", record, boxes.to_write(), *self);

  const CheckpointSummary with = verify_checkpoint(folder / "with.h5"),
                          without = verify_checkpoint(folder / "without.h5");

  expect_sample_record(with.record);
  EXPECT_EQ(without.record.text_digest, "");
  EXPECT_EQ(with.root_digest, without.root_digest);
}

/// The user's error when the sample checkpoint is read with `change`d layouts, on two ranks.
std::string mismatch(const fs::path& file, const std::function<void(TensorLayout&)>& change) {
  std::vector<std::string> messages(2);
  run_on_threads(2, [&](Communicator& world) {
    std::vector<TensorLayout> layouts = {sample_layouts()[0], sample_layouts()[1]};
    change(layouts[1]);
    SampleBoxes boxes(layouts, all_on(1), world.rank());
    try {
      read_checkpoint(file, boxes.to_read(), world);
    } catch (const UserError& error) {
      messages[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  EXPECT_EQ(messages[0], messages[1]);
  return messages[0];
}

TEST(Checkpoint, AnotherModelIsTheUsersError) {
  const TemporaryFolder folder;
  const fs::path file = folder / "a.h5";
  write_sample(file);

  EXPECT_THAT(mismatch(file,
                       [](TensorLayout& t) {
                         t.shape = {64, 8};
                         t.split = 16;
                       }),
              AllOf(HasSubstr("W_x"), HasSubstr("[32, 8]"), HasSubstr("[64, 8]"), HasSubstr(file.string())));
  EXPECT_THAT(mismatch(file, [](TensorLayout& t) { t.path = "/parameters/lstm1/W_x"; }),
              AllOf(HasSubstr("has no /parameters/lstm1/W_x")));
  EXPECT_THAT(mismatch(file, [](TensorLayout& t) { t.split_parts = 2; }),
              AllOf(HasSubstr("W_x"), HasSubstr("--lane-groups 4"), HasSubstr("--unit-blocks 4")));
}

TEST(Checkpoint, WhatIsNoCheckpointIsTheUsersError) {
  const TemporaryFolder folder;
  std::ofstream(folder / "text.h5") << "In the beginning";
  const auto message = [](const fs::path& file) -> std::string {
    try {
      read_record(file);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };

  EXPECT_THAT(message(folder / "none.h5"), HasSubstr("does not exist"));
  EXPECT_THAT(message(folder.path()), HasSubstr("is not a file"));
  EXPECT_THAT(message(folder / "text.h5"), HasSubstr("is not a Lamina checkpoint"));
}

TEST(Checkpoint, AnEmptyOrZeroedFileIsDamaged) {
  const TemporaryFolder folder;
  std::ofstream(folder / "empty.h5").flush();
  std::ofstream(folder / "zeros.h5") << std::string(10'000, '\0');

  EXPECT_THROW(read_record(folder / "empty.h5"), DamagedCheckpoint);
  EXPECT_THROW(read_record(folder / "zeros.h5"), DamagedCheckpoint);
}

TEST(CheckpointFolder, ListsCheckpointsByStep) {
  const TemporaryFolder folder;
  const CheckpointFolder checkpoints(folder.path());
  for (const char* name :
       {"step-00000200.h5", "step-00000010.h5", "step-123456789.h5", "step-00000300.h5.partial",
        "step-00000001.h5.damaged", "step-0000000x.h5", "step-1.h5", "notes.txt", "a.h5"})
    std::ofstream(folder / name).flush();
  fs::create_directory(folder / "step-00000400.h5");

  EXPECT_THAT(checkpoints.list(), ElementsAre(folder / "step-00000010.h5", folder / "step-00000200.h5",
                                              folder / "step-123456789.h5"));
  EXPECT_EQ(checkpoints.file_of(200), folder / "step-00000200.h5");
  EXPECT_EQ(checkpoints.file_of(123456789), folder / "step-123456789.h5");
  EXPECT_THAT(CheckpointFolder(folder / "none").list(), IsEmpty());
}

/// A folder of whole checkpoints, with the steps and validation losses given.
class Retention : public ::testing::Test {
 protected:
  void write(std::int64_t step, std::optional<double> loss = std::nullopt) {
    CheckpointRecord record;
    record.step = step;
    record.validation_loss = loss;
    write_sample(folder().file_of(step), record);
  }
  void damage(std::int64_t step) const { fs::resize_file(folder().file_of(step), 3000); }
  CheckpointFolder folder() const { return CheckpointFolder(temporary_.path()); }
  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> all;
    for (const fs::path& file : folder().list()) all.push_back(std::stoll(file.stem().string().substr(5)));
    return all;
  }

  const TemporaryFolder temporary_;
};

TEST_F(Retention, KeepsTheNewest) {
  for (const int step : {0, 10, 20, 30}) write(step);
  std::ofstream(temporary_ / "step-00000005.h5.damaged").flush();

  folder().prune({.keep_last = 0});
  EXPECT_EQ(steps().size(), 4u);
  folder().prune({.keep_last = 2});
  EXPECT_THAT(steps(), ElementsAre(20, 30));
  folder().prune({.keep_last = 7});
  EXPECT_EQ(steps().size(), 2u);
  EXPECT_TRUE(fs::exists(temporary_ / "step-00000005.h5.damaged"));
}

TEST_F(Retention, KeepsEveryNth) {
  for (const int step : {0, 10, 20, 30, 40, 50}) write(step);

  folder().prune({.keep_last = 1, .keep_every = 20});

  EXPECT_THAT(steps(), ElementsAre(0, 20, 40, 50));
}

TEST_F(Retention, KeepsTheBestAndFindsItAnewAfterAResume) {
  write(10, 3.0);
  write(20, 1.0);
  write(30);
  write(40, 2.0);
  CheckpointFolder one = folder();
  one.prune({.keep_last = 1, .keep_best = true});
  EXPECT_THAT(steps(), ElementsAre(20, 40));

  write(50, 1.5);
  one.prune({.keep_last = 1, .keep_best = true});
  EXPECT_THAT(steps(), ElementsAre(20, 50));

  write(60, 1.0);  // as good, and newer
  write(70, std::numeric_limits<double>::quiet_NaN());
  folder().prune({.keep_last = 1, .keep_best = true});
  EXPECT_THAT(steps(), ElementsAre(60, 70));

  write(60, 9.0);  // another file of the same name
  write(80, 8.0);
  write(90);
  one.prune({.keep_last = 1, .keep_best = true});
  EXPECT_THAT(steps(), ElementsAre(80, 90));
}

TEST_F(Retention, ADamagedFileIsNeitherTheBestNorTheNewest) {
  write(10, 2.0);
  write(20, 3.0);
  for (const int step : {30, 40}) {
    write(step, 1.0);
    damage(step);
  }

  folder().prune({.keep_last = 1, .keep_best = true});
  EXPECT_THAT(steps(), ElementsAre(10, 20, 40));
  folder().prune({.keep_last = 1});
  EXPECT_THAT(steps(), ElementsAre(20, 40));
  damage(20);
  folder().prune({.keep_last = 1});
  EXPECT_THAT(steps(), ElementsAre(40));
}

TEST(CheckpointFolder, RemovesOnlyPartialCheckpoints) {
  const TemporaryFolder folder;
  for (const char* name : {"step-00000010.h5.partial", "notes.h5.partial", "step-00000010.h5"})
    std::ofstream(folder / name).flush();

  CheckpointFolder(folder.path()).remove_partials();

  EXPECT_FALSE(fs::exists(folder / "step-00000010.h5.partial"));
  EXPECT_TRUE(fs::exists(folder / "notes.h5.partial"));
  EXPECT_TRUE(fs::exists(folder / "step-00000010.h5"));
}

TEST(CheckpointFolder, SetsDamagedFilesAsideWithoutLosingOne) {
  const TemporaryFolder folder;
  const CheckpointFolder checkpoints(folder.path());
  std::ofstream(checkpoints.file_of(1)) << "first";
  EXPECT_EQ(CheckpointFolder::set_aside(checkpoints.file_of(1)), folder / "step-00000001.h5.damaged");
  std::ofstream(checkpoints.file_of(1)) << "second";

  const fs::path second = CheckpointFolder::set_aside(checkpoints.file_of(1));

  EXPECT_EQ(bytes_of(second), "second");
  EXPECT_EQ(bytes_of(folder / "step-00000001.h5.damaged"), "first");
  EXPECT_THAT(checkpoints.list(), IsEmpty());
}

TEST(CheckpointFolder, PrepareMakesTheFolderAndLeavesNothing) {
  const TemporaryFolder folder;

  CheckpointFolder(folder / "a/b").prepare();

  EXPECT_TRUE(fs::is_empty(folder / "a/b"));
}

TEST(CheckpointFolder, PrepareRefusesWhereNothingCanBeWritten) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file").flush();
  const auto message = [](const fs::path& path) -> std::string {
    try {
      CheckpointFolder(path).prepare("--folder");
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };

  EXPECT_THAT(message(folder / "file"), HasSubstr((folder / "file").string()));
  EXPECT_THAT(message(folder / "file/below"), HasSubstr("Not a directory"));
  EXPECT_THAT(message("/proc"), HasSubstr("/proc"));
  EXPECT_THAT(message("/proc"), HasSubstr("give --folder another path"));
  EXPECT_THAT(message("/proc/x"), HasSubstr("give --folder a path that can be written"));
}

TEST(Hdf5Library, NamesItsVersion) {
  EXPECT_THAT(hdf5_library(), ::testing::MatchesRegex("HDF5 1\\..*, parallel"));
}

}  // namespace
}  // namespace lamina
