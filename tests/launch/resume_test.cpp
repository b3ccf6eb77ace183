// ctest: labels=ranks timeout=240
// The whole training program on thread ranks: 40 steps in one go, or 20 + 10 + 10 with two resumes, on the
// same grid or on others, end in the same checkpoint, bit for bit.
#include "launch/resume.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "launch/corpus.h"
#include "launch/train.h"
#include "runtime/communicator.h"
#include "runtime/error.h"
#include "runtime/process_grid.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

struct Grid {
  int data = 1, model = 1;
};

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("lamina_resume_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::ofstream text(folder_ / "text");
    for (int i = 0; i < 2500; ++i)
      text << static_cast<char>('a' + (i * i + i / 7) % 11) << (i % 13 == 0 ? "\n" : "");
  }
  void TearDown() override { fs::remove_all(folder_); }

  Configuration configuration(const std::string& name, std::int64_t steps) const {
    Configuration c;
    c.data.data = (folder_ / "text").string();
    c.model.hidden = 16;
    c.model.embedding = 8;
    c.model.layers = 2;
    c.model.dropout = 0.2;
    c.grid.lane_groups = 4;
    c.run.batch = 8;
    c.run.time_steps = 12;
    c.run.steps = steps;
    c.run.threads = 1;
    c.run.log_every = 1000;
    c.checkpoint.checkpoint = (folder_ / name).string();
    c.checkpoint.keep = 0;
    return c;
  }

  static void train_on(const Grid& grid, Configuration c) {
    c.grid.model_parallel = grid.model;
    run_on_threads(grid.data * grid.model, [&](Communicator& world) { train(c, world); });
  }

  void train_in_parts(const std::string& name, Configuration c, const std::vector<Grid>& grids) const {
    std::int64_t steps = 20;
    for (const Grid& grid : grids) {
      c.checkpoint.checkpoint = (folder_ / name).string();
      c.run.steps = steps;
      c.checkpoint.resume = steps > 20;
      train_on(grid, c);
      steps += 10;
    }
  }

  /// Digest of every tensor of the checkpoint of step 40.
  std::vector<std::string> digests(const std::string& name) const {
    const CheckpointSummary summary = verify_checkpoint(CheckpointFolder(folder_ / name).file_of(40));
    std::vector<std::string> all{std::to_string(summary.record.step), std::to_string(summary.record.chunk)};
    for (const TensorSummary& tensor : summary.tensors) all.push_back(tensor.path + " " + tensor.digest);
    return all;
  }

  fs::path folder_;
};

TEST_F(Resume, TwoResumesOnTheSameGridChangeNoBit) {
  for (const Grid& grid : {Grid{1, 1}, Grid{2, 2}}) {
    const Configuration c = configuration("whole", 40);
    train_on(grid, c);

    train_in_parts("parts", c, {grid, grid, grid});

    EXPECT_EQ(digests("whole"), digests("parts"));
    fs::remove_all(folder_ / "whole");
    fs::remove_all(folder_ / "parts");
  }
}

TEST_F(Resume, OtherGridsChangeNoBit) {
  Configuration c = configuration("whole", 40);
  train_on({1, 1}, c);

  train_in_parts("wider", c, {{1, 2}, {2, 2}, {4, 2}});
  train_in_parts("narrower", c, {{4, 1}, {1, 4}, {2, 1}});

  EXPECT_EQ(digests("whole"), digests("wider"));
  EXPECT_EQ(digests("whole"), digests("narrower"));
}

TEST_F(Resume, OtherSchedulesChangeNoBit) {
  Configuration c = configuration("whole", 40);
  train_on({1, 1}, c);

  c.checkpoint.checkpoint = (folder_ / "parts").string();
  for (const auto& [exchange, steps] :
       {std::pair{"cell", 15}, {"sharded", 25}, {"cell", 30}, {"replicated", 40}}) {
    c.model.exchange = exchange;
    c.run.steps = steps;
    c.checkpoint.resume = steps > 15;
    train_on({1, 2}, c);
  }

  EXPECT_EQ(digests("whole"), digests("parts"));
}

TEST_F(Resume, SgdWithMomentumAndStepScheduleChangesNoBit) {
  Configuration c = configuration("whole", 40);
  c.optimizer.optimizer = "sgd";
  c.optimizer.learning_rate = 0.1;
  c.optimizer.schedule = "step";
  c.optimizer.decay_every = 7;
  c.model.normalization = "none";
  train_on({2, 1}, c);

  train_in_parts("parts", c, {{2, 1}, {1, 1}, {2, 2}});

  EXPECT_EQ(digests("whole"), digests("parts"));
}

TEST_F(Resume, DropoutOfAnotherSeedChangesBits) {
  Configuration c = configuration("one", 40);
  train_on({1, 1}, c);
  c.checkpoint.checkpoint = (folder_ / "two").string();
  c.run.seed = 2;
  train_on({1, 1}, c);

  EXPECT_NE(digests("one"), digests("two"));
}

TEST_F(Resume, FallsBackToTheNewestValidCheckpoint) {
  Configuration c = configuration("whole", 40);
  c.checkpoint.checkpoint_every = 20;
  train_on({1, 1}, c);
  const auto expected = digests("whole");
  const fs::path newest = CheckpointFolder(folder_ / "whole").file_of(40);
  fs::resize_file(newest, fs::file_size(newest) / 2);

  c.checkpoint.resume = true;
  train_on({2, 1}, c);

  EXPECT_EQ(expected, digests("whole"));
  EXPECT_TRUE(fs::exists(newest.string() + ".damaged"));
}

TEST_F(Resume, WithoutADigestATextOfAnotherLengthIsNoticed) {
  const Configuration c = configuration("whole", 40);
  train_on({1, 1}, c);
  ResumePoint point{CheckpointFolder(folder_ / "whole").list().back(), {}};
  point.record = read_record(point.file);
  EXPECT_EQ(point.record.text_digest.size(), 32u);
  point.record.text_digest.clear();  // as earlier programs wrote it

  run_on_threads(1, [&](Communicator& world) {
    const Corpus corpus = read_corpus(c.data, world);
    const ProcessGrid grid(world, c.grid, c.run.batch);
    const std::int64_t chunks =
        TrainingLanes(corpus.training, c.run.batch, c.run.time_steps).chunks_per_epoch();

    EXPECT_NO_THROW(require_same_run(c, grid.tiling(), corpus, chunks, point));
    EXPECT_THROW(require_same_run(c, grid.tiling(), corpus, chunks + 1, point), UserError);
  });
}

TEST_F(Resume, RefusesAFolderInUseAndAnotherModel) {
  Configuration c = configuration("whole", 5);
  train_on({1, 1}, c);
  const auto held = CheckpointFolder(folder_ / "whole").list();

  EXPECT_THROW(train_on({1, 1}, c), UserError);
  c.checkpoint.resume = true;
  c.model.hidden = 32;
  EXPECT_THROW(train_on({2, 1}, c), UserError);

  EXPECT_EQ(held, CheckpointFolder(folder_ / "whole").list());
}

}  // namespace
}  // namespace lamina
