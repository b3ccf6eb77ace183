#include "runtime/process_grid.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace lamina {
namespace {

/// The one sentence that every rank gets, or "" when the grid can be made.
std::string refusal(int ranks, const GridSettings& settings, int batch = 8) {
  std::vector<std::string> sentences(static_cast<std::size_t>(ranks));
  run_on_threads(ranks, [&](Communicator& world) {
    try {
      const ProcessGrid grid(world, settings, batch);
    } catch (const UserError& error) {
      sentences[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  for (const std::string& sentence : sentences) EXPECT_EQ(sentences.front(), sentence);
  return sentences.front();
}

TEST(ProcessGrid, PutsModelRanksNextToEachOther) {
  run_on_threads(4, [](Communicator& world) {
    ProcessGrid grid(world, {.model_parallel = 2}, 4);
    const int data = world.rank() / 2, model = world.rank() % 2;

    EXPECT_EQ(2, grid.data().size());
    EXPECT_EQ(2, grid.model().size());
    EXPECT_EQ(data, grid.data().rank());
    EXPECT_EQ(model, grid.model().rank());
    EXPECT_EQ(world.rank() == 0, grid.is_root());
    EXPECT_EQ(&world, &grid.world());
  });
}

TEST(ProcessGrid, AxesConnectTheRightRanks) {
  run_on_threads(8, [](Communicator& world) {
    ProcessGrid grid(world, {.model_parallel = 2}, 8);
    std::int32_t along_data = 1 << world.rank(), along_model = along_data;

    grid.data().all_reduce(std::span(&along_data, 1));
    grid.model().all_reduce(std::span(&along_model, 1));

    EXPECT_EQ(world.rank() % 2 == 0 ? 0b01010101 : 0b10101010, along_data);
    EXPECT_EQ(0b11 << (world.rank() / 2 * 2), along_model);
  });
}

TEST(ProcessGrid, SharesTiles) {
  run_on_threads(4, [](Communicator& world) {
    const ProcessGrid grid(world, {.model_parallel = 2, .lane_groups = 8, .unit_blocks = 16, .passes = 2},
                           24);
    const int data = world.rank() / 2, model = world.rank() % 2;

    EXPECT_EQ((Share{.count = 8, .first = data * 4, .local = 4}), grid.tiling().groups);
    EXPECT_EQ((Share{.count = 16, .first = model * 8, .local = 8}), grid.tiling().blocks);
    EXPECT_EQ(3, grid.tiling().rows);
    EXPECT_EQ(2, grid.passes());
  });
}

TEST(ProcessGrid, HasALaneGroupForEachDataRankAndPassByDefault) {
  run_on_threads(4, [](Communicator& world) {
    const ProcessGrid grid(world, {.model_parallel = 2, .passes = 4}, 16);

    EXPECT_EQ(8, grid.tiling().groups.count);
    EXPECT_EQ(4, grid.tiling().groups.local);
    EXPECT_EQ(2, grid.tiling().rows);
  });
}

TEST(ProcessGrid, WorksOnOneRank) {
  const auto self = make_self_communicator();
  const ProcessGrid grid(*self, {}, 5);

  EXPECT_EQ((Share{.count = 8, .first = 0, .local = 8}), grid.tiling().blocks);
  EXPECT_EQ(5, grid.tiling().rows);
}

TEST(ProcessGrid, RefusesRanksThatDoNotMakeAGrid) {
  EXPECT_EQ(
      "3 ranks cannot be laid out as a data x model grid with --model-parallel 2: use a multiple of 2 ranks",
      refusal(3, {.model_parallel = 2}));
  EXPECT_EQ(
      "1 ranks cannot be laid out as a data x model grid with --model-parallel 2: use a multiple of 2 ranks",
      refusal(1, {.model_parallel = 2}));
  EXPECT_EQ(
      "6 ranks with --model-parallel 2 make a data axis of 3, which is not a power of two: use 4 or 8 ranks",
      refusal(6, {.model_parallel = 2}));
}

TEST(ProcessGrid, RefusesCountsThatAreNotPowersOfTwo) {
  const auto sentence = [](const char* flag, int value) {
    return fmt::format("--{} {} cannot be used: it must be a power of two (1, 2, 4, 8, …)", flag, value);
  };

  for (const int value : {-4, 3, 12}) {
    EXPECT_EQ(sentence("model-parallel", value), refusal(2, {.model_parallel = value}));
    EXPECT_EQ(sentence("unit-blocks", value), refusal(2, {.unit_blocks = value}));
    EXPECT_EQ(sentence("passes", value), refusal(2, {.passes = value}));
    EXPECT_EQ(sentence("lane-groups", value), refusal(2, {.lane_groups = value}));
  }
  EXPECT_EQ(sentence("model-parallel", 0), refusal(2, {.model_parallel = 0}));
  EXPECT_EQ(sentence("unit-blocks", 0), refusal(2, {.unit_blocks = 0}));
  EXPECT_EQ(sentence("passes", 0), refusal(2, {.passes = 0}));
}

TEST(ProcessGrid, RefusesWhatDoesNotDivide) {
  EXPECT_EQ("--unit-blocks 2 cannot be split over --model-parallel 4: use at least 4 unit blocks",
            refusal(4, {.model_parallel = 4, .unit_blocks = 2}));
  EXPECT_EQ("--lane-groups 2 cannot be split over 2 data ranks x 2 passes: use a multiple of 4",
            refusal(2, {.lane_groups = 2, .passes = 2}));
  EXPECT_EQ("--batch 10 cannot be split into 4 lane groups: use a multiple of 4",
            refusal(2, {.lane_groups = 4}, 10));
  EXPECT_EQ("--batch 0 cannot be used: it must be 1 or more", refusal(2, {}, 0));
  EXPECT_EQ("--batch -8 cannot be used: it must be 1 or more", refusal(2, {}, -8));
  EXPECT_NE("", refusal(2, {.passes = 1 << 30}));
}

}  // namespace
}  // namespace lamina
