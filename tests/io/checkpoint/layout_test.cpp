#include "io/checkpoint/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace lamina::checkpoint {
namespace {

TensorLayout layout(std::vector<std::int64_t> shape, std::vector<std::int64_t> view, int outer_parts = 1,
                    int split_parts = 1) {
  return {"/x", std::move(shape), view[0], view[1], view[2], outer_parts, split_parts};
}

/// Row-major indices of a region in the view, in the order of the region's own memory.
std::vector<std::int64_t> indices_of(const TensorLayout& t, const Region& r) {
  std::vector<std::int64_t> indices;
  for (std::int64_t o = 0; o < r.outer.count; ++o)
    for (std::int64_t s = 0; s < r.split.count; ++s)
      for (std::int64_t i = 0; i < r.inner.count; ++i)
        indices.push_back(((r.outer.first + o) * t.split + r.split.first + s) * t.inner + r.inner.first + i);
  return indices;
}

/// Row-major indices of a hyperslab in the dataset's shape, in the order HDF5 goes through them.
std::vector<std::int64_t> indices_of(const std::vector<std::int64_t>& shape, const Hyperslab& slab) {
  std::vector<std::int64_t> indices = {0};
  for (std::size_t d = 0; d < shape.size(); ++d) {
    std::vector<std::int64_t> finer;
    for (const std::int64_t index : indices)
      for (unsigned long long c = 0; c < slab.count[d]; ++c)
        for (unsigned long long b = 0; b < slab.block[d]; ++b)
          finer.push_back(index * shape[d] +
                          static_cast<std::int64_t>(slab.start[d] + c * slab.stride[d] + b));
    indices = std::move(finer);
  }
  return indices;
}

const std::vector<TensorLayout> kLayouts = {
    layout({24, 5}, {4, 6, 5}, 1, 3),      // [outer * split, inner]
    layout({24}, {4, 6, 1}, 2, 4),         // [outer * split]
    layout({9, 8}, {9, 8, 1}, 4, 4),       // [outer, split]
    layout({9, 8}, {1, 9, 8}, 1, 4),       // [split, inner]
    layout({7}, {1, 7, 1}, 1, 4),          // [split]
    layout({3, 4, 5}, {3, 4, 5}, 2, 2),    // [outer, split, inner]
    layout({3, 20}, {3, 4, 5}, 2, 2),      // [outer, split * inner]
    layout({60}, {3, 4, 5}, 2, 3),         // all in one
    layout({1, 8}, {1, 8, 1}, 1, 2),       // batch 1
    layout({8, 1}, {8, 1, 1}, 8, 1),       // one unit
    layout({1, 1, 6, 1}, {1, 6, 1}, 1, 6)  // dimensions of size 1
};

TEST(Layout, BoxesTileTheTensor) {
  for (const TensorLayout& t : kLayouts) {
    ASSERT_EQ(layout_problem(t), "") << to_string(t.shape);
    std::multiset<std::int64_t> covered;
    for (int o = 0; o < t.outer_parts; ++o)
      for (int s = 0; s < t.split_parts; ++s) {
        const auto indices = indices_of(t, box_region(t, o, s));
        EXPECT_EQ(static_cast<std::int64_t>(indices.size()), t.box_size(o, s));
        covered.insert(indices.begin(), indices.end());
      }
    EXPECT_EQ(static_cast<std::int64_t>(covered.size()), elements(t.shape));
    EXPECT_EQ(std::set(covered.begin(), covered.end()).size(), covered.size());
  }
}

TEST(Layout, PartsAreAsWideAsTheBlocksOfParameters) {
  const TensorLayout t = layout({9, 8}, {1, 9, 8}, 1, 4);  // ceil(9 / 4) = 3

  EXPECT_EQ(box_region(t, 0, 2).split, (Range{6, 3}));
  EXPECT_EQ(box_region(t, 0, 3).split, (Range{9, 0}));
  EXPECT_EQ(t.box_size(0, 3), 0);
}

TEST(Layout, PiecesFollowEachOtherInMemoryAndStayBelowTheLimit) {
  for (const TensorLayout& t : kLayouts)
    for (std::int64_t limit = 1; limit < 70; ++limit)
      for (int o = 0; o < t.outer_parts; ++o)
        for (int s = 0; s < t.split_parts; ++s) {
          std::vector<std::int64_t> joined;
          for (const Region& piece : pieces_of(box_region(t, o, s), limit)) {
            EXPECT_LE(piece.size(), limit);
            EXPECT_GT(piece.size(), 0);
            const auto indices = indices_of(t, piece);
            joined.insert(joined.end(), indices.begin(), indices.end());
          }
          EXPECT_EQ(joined, indices_of(t, box_region(t, o, s)));
        }
}

TEST(Layout, HyperslabsSelectThePiecesInTheDatasetsShape) {
  for (const TensorLayout& t : kLayouts)
    for (const std::int64_t limit : {1, 3, 4, 7, 100})
      for (int o = 0; o < t.outer_parts; ++o)
        for (int s = 0; s < t.split_parts; ++s)
          for (const Region& piece : pieces_of(box_region(t, o, s), limit))
            EXPECT_EQ(indices_of(t.shape, hyperslab_of(t, piece)), indices_of(t, piece))
                << to_string(t.shape);
}

TEST(Layout, NamesWhatIsWrong) {
  EXPECT_NE(layout_problem(layout({24, 5}, {5, 6, 4})), "");
  EXPECT_NE(layout_problem(layout({24, 5}, {4, 6, 1})), "");
  EXPECT_NE(layout_problem(layout({}, {1, 1, 1})), "");
  EXPECT_NE(layout_problem(layout({0, 5}, {0, 1, 5})), "");
  EXPECT_NE(layout_problem(layout({-4}, {-4, 1, 1})), "");
  EXPECT_NE(layout_problem(layout({4}, {1, 4, 1}, 1, 0)), "");
  EXPECT_NE(layout_problem(layout({std::int64_t{1} << 40, std::int64_t{1} << 40}, {1, 1, 1})), "");
  TensorLayout nameless = layout({4}, {1, 4, 1});
  nameless.path = "x";
  EXPECT_NE(layout_problem(nameless), "");
}

}  // namespace
}  // namespace lamina::checkpoint
