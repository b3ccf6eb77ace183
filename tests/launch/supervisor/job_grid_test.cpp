// What is left of a grid when hosts are lost: as many ranks as fit, and the same bits.
#include "launch/supervisor/job_grid.h"

#include <gtest/gtest.h>

#include <bit>

namespace lamina {
namespace {

void expect_grid(int slots, const GridSettings& wanted, int ranks, int model_parallel) {
  const JobGrid grid = largest_grid(slots, wanted);
  EXPECT_EQ(grid.ranks, ranks) << slots << " slots";
  EXPECT_EQ(grid.model_parallel, model_parallel) << slots << " slots";
}

TEST(LargestGrid, LosesDataRanksFirst) {
  const GridSettings four_by_four{.model_parallel = 4, .lane_groups = 4};
  for (const int slots : {16, 17, 31, 1000}) expect_grid(slots, four_by_four, 16, 4);
  for (const int slots : {8, 15}) expect_grid(slots, four_by_four, 8, 4);
  for (const int slots : {4, 7}) expect_grid(slots, four_by_four, 4, 4);
  for (const int slots : {2, 3}) expect_grid(slots, four_by_four, 2, 2);
  expect_grid(1, four_by_four, 1, 1);
}

TEST(LargestGrid, LeavesEveryPassALaneGroup) {
  expect_grid(64, {.model_parallel = 2, .lane_groups = 8, .passes = 4}, 4, 2);
  expect_grid(3, {.model_parallel = 1, .lane_groups = 4, .passes = 4}, 1, 1);
}

TEST(LargestGrid, DividesWhatTheRunIsCutInto) {
  for (int slots = 1; slots <= 40; ++slots)
    for (const int model : {1, 2, 4, 8})
      for (const int groups : {1, 2, 8}) {
        const GridSettings wanted{.model_parallel = model, .lane_groups = groups};
        const JobGrid grid = largest_grid(slots, wanted);
        EXPECT_LE(grid.ranks, slots);
        EXPECT_EQ(wanted.unit_blocks % grid.model_parallel, 0);
        ASSERT_EQ(grid.ranks % grid.model_parallel, 0);
        EXPECT_EQ(groups % (grid.ranks / grid.model_parallel), 0);
      }
}

}  // namespace
}  // namespace lamina
