#include "runtime/parameter.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"

namespace lamina {
namespace {

using test::same_bits;

TEST(BlockedShape, LastBlocksAreShorterOrEmpty) {
  const BlockedShape shape{.outer = 1, .split = 9, .inner = 4, .blocks = 8};

  EXPECT_EQ(shape.width(), 2);
  EXPECT_EQ(shape.bound(4), 8);
  EXPECT_EQ(shape.bound(5), 9);
  EXPECT_EQ(shape.bound(8), 9);
  EXPECT_EQ(shape.block_size(3), 8);
  EXPECT_EQ(shape.block_size(4), 4);
  EXPECT_EQ(shape.block_size(5), 0);
  EXPECT_EQ(shape.size(), 36);
}

// W_x [4H, I], H = 4, I = 2, two unit blocks: block k is [4 gates, units 2k and 2k+1, I].
TEST(BlockedShape, BlockOfAGateMatrixHoldsAllGatesOfItsUnits) {
  const BlockedShape shape{.outer = 4, .split = 4, .inner = 2, .blocks = 2};
  std::vector<float> global(32);
  std::iota(global.begin(), global.end(), 0.0f);

  const auto second = reference::to_blocks<float>(global, shape, Share{2, 1, 1});

  EXPECT_EQ(second, (std::vector<float>{4, 5, 6, 7,         // gate f, units 2 and 3
                                        12, 13, 14, 15,     // i
                                        20, 21, 22, 23,     // o
                                        28, 29, 30, 31}));  // g
}

ParameterTable make_table(Backend& backend, const Share& blocks, std::uint64_t seed = 1) {
  ParameterTable table;
  table.add("lstm0/W_x", {32, 6}, {4, 8, 6, 8}, blocks, Initializer::uniform(0.25f), true);
  table.add("embedding/table", {5, 16}, {5, 16, 1, 8}, blocks, Initializer::uniform(1), false);
  table.add("lstm0/gain_x", {32}, {4, 8, 1, 8}, blocks, Initializer::constant(1.5f), false);
  table.add("output/W", {11, 4}, {1, 11, 4, 8}, blocks, Initializer::uniform(2), true);
  table.allocate(backend, seed);
  return table;
}

/// The values of one parameter, gathered from `ranks` model ranks.
std::vector<float> global_values(int index, int ranks, std::uint64_t seed = 1) {
  const auto backend = make_cpu_backend(1);
  std::vector<float> global;
  for (int rank = 0; rank < ranks; ++rank) {
    ParameterTable table = make_table(*backend, Share::of(8, rank, ranks), seed);
    const Parameter& p = table[index];
    global.resize(static_cast<std::size_t>(p.size()), NAN);
    std::vector<float> local(static_cast<std::size_t>(p.local_size));
    backend->to_host(table.value(index), local);
    reference::from_blocks(std::span<const float>(local), p.blocked, p.blocks, global);
  }
  return global;
}

TEST(ParameterTable, FirstValuesDoNotDependOnTheGrid) {
  for (int index = 0; index < 4; ++index) {
    const std::vector<float> whole = global_values(index, 1);
    for (const int ranks : {2, 4, 8})
      EXPECT_TRUE(same_bits(whole, global_values(index, ranks))) << index << " on " << ranks << " ranks";
  }
}

TEST(ParameterTable, UniformValuesAreDrawnPerIndexWithinTheBound) {
  const std::vector<float> values = global_values(0, 1);

  for (const float value : values) EXPECT_TRUE(value >= -0.25f && value < 0.25f) << value;
  EXPECT_EQ(std::set<float>(values.begin(), values.end()).size(), values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  EXPECT_NEAR(mean, 0, 0.25 / std::sqrt(3.0) * 4 / std::sqrt(static_cast<double>(values.size())));
}

TEST(ParameterTable, FirstValuesDependOnSeedAndName) {
  EXPECT_FALSE(same_bits(global_values(0, 1, 1), global_values(0, 1, 2)));

  const std::vector<float> table = global_values(1, 1), W = global_values(3, 1);
  EXPECT_NE(table[0], W[0] / 2);
}

TEST(ParameterTable, ConstantsAreConstant) { EXPECT_EQ(global_values(2, 2), std::vector<float>(32, 1.5f)); }

TEST(ParameterTable, ParametersLieInOneArenaInOrder) {
  const auto backend = make_cpu_backend(1);
  ParameterTable table = make_table(*backend, Share::of(8, 1, 2));

  std::int64_t offset = 0;
  for (int i = 0; i < 4; ++i) {
    const Parameter& p = table[i];
    EXPECT_EQ(p.offset, offset);
    EXPECT_EQ(static_cast<std::int64_t>(table.value(i).size()), p.local_size);
    EXPECT_EQ(table.value(i).data(), table.values().data() + offset);
    EXPECT_EQ(table.gradient(i).data(), table.gradients().data() + offset);
    offset += p.local_size;
  }
  EXPECT_EQ(table.local_size(), offset);
  EXPECT_EQ(table[3].local_size, 3 * 4) << "classes 8, 9 and 10; the last two blocks are empty";
  EXPECT_EQ(table.global_size(), 32 * 6 + 5 * 16 + 32 + 11 * 4);
  EXPECT_EQ(table.all()[1].name, "embedding/table");
  EXPECT_EQ(table.all()[1].shape, (std::vector<std::int64_t>{5, 16}));
  EXPECT_TRUE(table[0].decay);
  EXPECT_FALSE(table[2].decay);
}

TEST(ParameterTable, RefusesWhatDoesNotFit) {
  const auto backend = make_cpu_backend(1);
  ParameterTable table;
  const Share all = Share::of(8, 0, 1);
  const Initializer zero = Initializer::constant(0);

  EXPECT_THROW(table.add("shape", {3, 5}, {1, 16, 1, 8}, all, zero, false), InternalError);
  EXPECT_THROW(table.add("blocks", {16}, {1, 16, 1, 4}, all, zero, false), InternalError);
  table.add("good", {16}, {1, 16, 1, 8}, all, zero, false);
  table.allocate(*backend, 1);
  EXPECT_THROW(table.add("late", {16}, {1, 16, 1, 8}, all, zero, false), InternalError);
}

}  // namespace
}  // namespace lamina
