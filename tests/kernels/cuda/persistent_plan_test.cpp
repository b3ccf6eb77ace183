// How a layer is cut for kernels that run all time steps, on GPUs known by their figures only.
#include "kernels/cuda/recurrence/persistent_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace lamina::cuda {
namespace {

cudaDeviceProp gpu(int multiprocessors, std::size_t shared_bytes) {
  cudaDeviceProp properties{};
  properties.major = 9;
  properties.multiProcessorCount = multiprocessors;
  properties.sharedMemPerBlockOptin = shared_bytes;
  properties.cooperativeLaunch = 1;
  return properties;
}
cudaDeviceProp h100() { return gpu(132, 232448); }
cudaDeviceProp a100() {
  cudaDeviceProp properties = gpu(108, 166912);
  properties.major = 8;
  return properties;
}

RecurrenceShape layer(int hidden, int lanes, int model_ranks = 1) {
  RecurrenceShape shape;
  shape.inputs = shape.hidden = hidden;
  shape.max_time_steps = 100;
  shape.tiling = {.groups = {}, .blocks = Share::of(8, 0, model_ranks), .rows = lanes};
  shape.precision = Precision::bf16;
  return shape;
}

struct Row {
  int hidden, lanes;
  cudaDeviceProp device;
  PersistentGrid grid;  ///< units, members, ranks, teams, rows, row tiles
};

TEST(PersistentPlan, CutsLayersByTheTable) {
  for (const Row& row : {Row{1024, 16, h100(), {8, 128, 1, 1, 16, 1}},   //
                         Row{1024, 64, h100(), {16, 64, 1, 2, 32, 2}},   // fewer rows for each
                         Row{1024, 128, h100(), {16, 64, 1, 2, 64, 1}},  // more at a time has no room
                         Row{512, 16, h100(), {8, 64, 1, 1, 16, 1}},     //
                         Row{512, 64, h100(), {16, 32, 1, 4, 16, 1}},    //
                         Row{512, 80, h100(), {32, 16, 1, 5, 16, 1}},    //
                         Row{768, 16, h100(), {8, 96, 1, 1, 16, 1}},     //
                         Row{256, 256, h100(), {32, 8, 1, 16, 16, 1}},   //
                         Row{256, 20, h100(), {8, 32, 1, 2, 16, 1}},     // the second team has four lanes
                         Row{32, 1, h100(), {8, 4, 1, 1, 16, 1}},        //
                         Row{512, 48, a100(), {16, 32, 1, 3, 16, 1}},    //
                         Row{768, 64, a100(), {16, 48, 1, 2, 32, 1}}}) {
    SCOPED_TRACE("hidden " + std::to_string(row.hidden) + ", lanes " + std::to_string(row.lanes));

    const PersistentPlan plan = plan_persistent(layer(row.hidden, row.lanes), row.device);

    ASSERT_TRUE(plan.fits()) << plan.why_not;
    EXPECT_EQ(plan.grid.units, row.grid.units);
    EXPECT_EQ(plan.grid.members, row.grid.members);
    EXPECT_EQ(plan.grid.teams, row.grid.teams);
    EXPECT_EQ(plan.grid.rows, row.grid.rows);
    EXPECT_EQ(plan.grid.row_tiles, row.grid.row_tiles);
    EXPECT_LE(plan.grid.blocks(), row.device.multiProcessorCount);
    EXPECT_LE(plan.forward_bytes, row.device.sharedMemPerBlockOptin);
    EXPECT_LE(plan.backward_bytes, row.device.sharedMemPerBlockOptin);
  }
}

TEST(PersistentPlan, HasRoomForAllLanes) {
  for (int hidden = 32; hidden <= 1408; hidden += 32)
    for (const int lanes : {1, 15, 16, 17, 33, 64, 100, 128}) {
      const PersistentPlan plan = plan_persistent(layer(hidden, lanes), h100());
      if (!plan.fits()) continue;
      EXPECT_EQ(plan.grid.members * plan.grid.units, hidden);
      EXPECT_GE(plan.grid.all_rows(), lanes);
      EXPECT_LT((plan.grid.teams - 1) * plan.grid.rows, lanes) << "a team without lanes";
    }
}

struct SplitRow {
  int hidden, lanes, ranks;
  PersistentGrid grid;  ///< units, members, ranks, teams, rows, row tiles
};

TEST(PersistentPlan, SplitsTeamsOverModelRanks) {
  for (const SplitRow& row :
       {SplitRow{1024, 16, 2, {8, 128, 2, 1, 16, 1}},   // as on one
        SplitRow{1024, 128, 2, {16, 64, 2, 4, 32, 2}},  // more teams, fewer rows for each
        SplitRow{1024, 128, 4, {16, 64, 4, 8, 16, 1}},  //
        SplitRow{512, 80, 4, {32, 16, 4, 5, 16, 1}},    //
        SplitRow{2048, 16, 2, {8, 256, 2, 1, 16, 1}},   // too large for one
        SplitRow{2048, 64, 8, {8, 256, 8, 4, 16, 1}}}) {
    SCOPED_TRACE("hidden " + std::to_string(row.hidden) + ", ranks " + std::to_string(row.ranks));

    const PersistentPlan plan = plan_persistent(layer(row.hidden, row.lanes, row.ranks), h100());

    ASSERT_TRUE(plan.fits()) << plan.why_not;
    EXPECT_EQ(plan.grid.units, row.grid.units);
    EXPECT_EQ(plan.grid.members, row.grid.members);
    EXPECT_EQ(plan.grid.ranks, row.ranks);
    EXPECT_EQ(plan.grid.teams, row.grid.teams);
    EXPECT_EQ(plan.grid.rows, row.grid.rows);
    EXPECT_EQ(plan.grid.row_tiles, row.grid.row_tiles);
    EXPECT_LE(plan.grid.blocks(), h100().multiProcessorCount);
  }
}

// Of which the bits are made.
TEST(PersistentPlan, GivesMembersTheSameUnitsOnEveryModelAxis) {
  for (int hidden = 64; hidden <= 2048; hidden += 64)
    for (const int lanes : {1, 16, 64, 100, 256}) {
      int units = 0;
      for (const int ranks : {1, 2, 4, 8}) {
        const PersistentPlan plan = plan_persistent(layer(hidden, lanes, ranks), h100());
        if (!plan.fits()) continue;
        if (units == 0) units = plan.grid.units;
        EXPECT_EQ(plan.grid.units, units) << hidden << ", " << lanes << " lanes, " << ranks << " ranks";
        EXPECT_EQ(plan.grid.members % ranks, 0);
      }
    }
}

std::string why_not(const RecurrenceShape& shape, const cudaDeviceProp& device) {
  return plan_persistent(shape, device).why_not;
}

/// Of a run of `groups` lane groups of 16, a pass of a rank with some of them.
PersistentPlan plan_of_pass(int hidden, int groups, int of_pass) {
  RecurrenceShape shape = layer(hidden, 16);
  shape.tiling.groups = {groups, 0, of_pass};
  return plan_persistent(shape, h100());
}

TEST(PersistentPlan, UnitsAreThoseOfTheRunOnAnyDataAxisAndInAnyPasses) {
  for (const int hidden : {256, 512, 768, 1024})
    for (const int groups : {1, 2, 4, 8, 16}) {
      SCOPED_TRACE("hidden " + std::to_string(hidden) + ", groups " + std::to_string(groups));
      const PersistentPlan whole = plan_of_pass(hidden, groups, groups);
      for (int of_pass = 1; of_pass < groups; of_pass *= 2) {
        const PersistentPlan part = plan_of_pass(hidden, groups, of_pass);

        ASSERT_TRUE(part.fits()) << part.why_not;
        if (whole.fits()) {
          EXPECT_EQ(part.grid.units, whole.grid.units);
        }
        EXPECT_EQ(part.grid.units, plan_of_pass(hidden, groups, 1).grid.units);
      }
    }
}

TEST(PersistentPlan, SaysWhyNot) {
  RecurrenceShape f32 = layer(512, 16);
  f32.precision = Precision::f32;
  cudaDeviceProp old = h100(), alone = h100();
  old.major = 7;
  alone.cooperativeLaunch = 0;

  EXPECT_EQ(why_not(f32, h100()), "its weights are bf16, and --precision is f32");
  EXPECT_EQ(why_not(layer(128, 1000, 8), h100()),
            "--hidden 128 over 8 model ranks does not divide into members of 32 units");
  EXPECT_EQ(why_not(layer(512, 16), old), "compute capability 7.0 is below 8.0");
  EXPECT_EQ(why_not(layer(512, 16), alone), "the GPU has no cooperative launches");
  EXPECT_EQ(why_not(layer(1000, 16), h100()), "--hidden 1000 is no multiple of 32");
  EXPECT_THAT(why_not(layer(2048, 16), h100()), ::testing::HasSubstr("bytes of shared memory"));
  EXPECT_THAT(why_not(layer(512, 4096), h100()), ::testing::HasSubstr("bytes of shared memory"));
  EXPECT_EQ(why_not(layer(8192, 16), h100()),
            "--hidden 8192 needs 256 multiprocessors with 32 units on each, of 132");
  EXPECT_EQ(why_not(layer(16384, 16, 4), h100()),
            "--hidden 16384 needs 128 multiprocessors with 32 units on each, of 64");
}

}  // namespace
}  // namespace lamina::cuda
