#include "kernels/cpu/array_tree.h"

#include <gtest/gtest.h>

#include "runtime/tree.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

TEST(ArrayTree, AddsInTheOrderOfTheTree) {
  constexpr std::size_t kSize = 37;
  ArrayTree tree;
  for (const std::size_t count : {1, 2, 3, 8, 13}) {
    const auto leaves = test::random_values("leaves", count * kSize);
    std::vector<float> sum(kSize), expected;
    std::vector<std::size_t> order;

    tree.sum(count, sum, [&](std::size_t i, std::span<float> array) {
      order.push_back(i);
      std::ranges::copy(std::span(leaves).subspan(i * kSize, kSize), array.begin());
    });

    for (std::size_t j = 0; j < kSize; ++j)
      expected.push_back(tree_sum(count, [&](std::size_t i) { return leaves[i * kSize + j]; }));
    EXPECT_TRUE(test::same_bits(sum, expected)) << count << " leaves";
    EXPECT_TRUE(std::ranges::is_sorted(order));
    EXPECT_EQ(order.size(), count);
  }
}

}  // namespace
}  // namespace lamina
