// ctest: labels=ranks
// A snapshot keeps what the run was when a save began, whatever training does meanwhile, on every grid.
#include "launch/checkpointing.h"

#include <gtest/gtest.h>

#include "kernels/backends.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

struct Grid {
  int data = 1, model = 1;
};

ModelSettings small_model() {
  ModelSettings settings;
  settings.layers = 2;
  settings.hidden = 16;
  settings.embedding = 8;
  return settings;
}

OptimizerSettings adam() {
  OptimizerSettings settings;
  settings.optimizer = "adam";
  return settings;
}

/// A rank's part of a run whose numbers all differ.
class SmallRun {
 public:
  SmallRun(const Grid& grid, Communicator& world)
      : grid_(world, {.model_parallel = grid.model, .lane_groups = 4}, 8),
        backend_(make_cpu_backend(1)),
        model_(small_model(), 11, 4, grid_.tiling(), *backend_, grid_.model(), 1),
        optimizer_(adam(), model_.parameters(), *backend_),
        state_(*backend_, 2, 16, grid_.tiling()) {}

  RunTensors tensors() { return {model_, &optimizer_, &state_}; }
  RunSnapshot snapshot() { return {tensors(), *backend_, grid_}; }
  void save(const std::filesystem::path& file, RunSave& save) {
    while (!save.save.is_complete()) save.save.advance();
    EXPECT_TRUE(std::filesystem::exists(file));
    EXPECT_GE(save.stall_seconds, 0);
  }
  void load(const std::filesystem::path& file) { load_run(file, tensors(), *backend_, grid_); }

  /// As a step of training would: everything becomes something else.
  void train() {
    for_each_arena([](std::span<float> values) {
      for (float& value : values) value = value * 0.5f + 3;
    });
  }
  std::vector<float> numbers() {
    std::vector<float> all;
    for_each_arena([&](std::span<float> values) { all.insert(all.end(), values.begin(), values.end()); });
    return all;
  }

 private:
  template <class Visit>
  void for_each_arena(const Visit& visit) {
    visit(model_.parameters().values());
    for (Optimizer::Slot& slot : optimizer_.slots()) visit(slot.values.view());
    for (int layer = 0; layer < state_.layers(); ++layer) {
      const auto view = state_.view(layer, 0, grid_.tiling().groups.local);
      visit(view.h);
      visit(view.c);
    }
  }

  ProcessGrid grid_;
  std::unique_ptr<Backend> backend_;
  LanguageModel model_;
  Optimizer optimizer_;
  CarriedState state_;
};

class Snapshot : public ::testing::TestWithParam<Grid> {};

TEST_P(Snapshot, KeepsTheRunAsItWas) {
  const TemporaryFolder folder;
  run_on_threads(GetParam().data * GetParam().model, [&](Communicator& world) {
    SmallRun run(GetParam(), world);
    RunSnapshot snapshot = run.snapshot();
    for (const std::int64_t step : {1, 2, 3}) {
      run.train();
      const std::vector<float> then = run.numbers();
      const auto file = CheckpointFolder(folder.path()).file_of(step);
      CheckpointRecord record;
      record.step = step;
      RunSave save = snapshot.begin_save(file, record);
      run.train();
      EXPECT_NE(run.numbers(), then);
      run.save(file, save);

      SmallRun other(GetParam(), world);
      other.load(file);
      EXPECT_EQ(other.numbers(), then) << "step " << step;
      world.barrier();
    }
  });
}

TEST_P(Snapshot, IsTheSameFileOnEveryGrid) {
  const TemporaryFolder folder;
  const auto save_on = [&](const Grid& grid, const std::string& name) {
    run_on_threads(grid.data * grid.model, [&](Communicator& world) {
      SmallRun run(grid, world);
      run.train();
      RunSnapshot snapshot = run.snapshot();
      RunSave save = snapshot.begin_save(folder / name, CheckpointRecord{});
      run.save(folder / name, save);
    });
  };

  save_on({1, 1}, "one.h5");
  save_on(GetParam(), "grid.h5");

  EXPECT_EQ(bytes_of(folder / "grid.h5"), bytes_of(folder / "one.h5"));
}

INSTANTIATE_TEST_SUITE_P(Grids, Snapshot,
                         ::testing::Values(Grid{1, 1}, Grid{2, 1}, Grid{1, 2}, Grid{4, 1}, Grid{2, 2}),
                         [](const auto& grid) {
                           return std::to_string(grid.param.data) + "x" + std::to_string(grid.param.model);
                         });

}  // namespace
}  // namespace lamina
