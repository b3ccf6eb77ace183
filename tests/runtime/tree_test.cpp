#include "runtime/tree.h"

#include <gtest/gtest.h>

#include <string>

namespace lamina {
namespace {

struct Term {
  std::string text;
  friend Term operator+(const Term& a, const Term& b) { return {"(" + a.text + b.text + ")"}; }
};

std::string summed(std::size_t count, std::size_t first = 0) {
  return tree_sum(
             count, [](std::size_t i) { return Term{std::string(1, static_cast<char>('a' + i))}; }, first)
      .text;
}

std::string merged(std::size_t count) {
  const auto merge = [](const Term& a, const Term& b) { return a + b; };
  TreeMerger<Term, decltype(merge)> merger(merge);
  for (std::size_t i = 0; i < count; ++i) merger.add({std::string(1, static_cast<char>('a' + i))});
  return merger.take().text;
}

TEST(TreeSum, PairsNeighboursThenPairs) {
  EXPECT_EQ("a", summed(1));
  EXPECT_EQ("(ab)", summed(2));
  EXPECT_EQ("((ab)c)", summed(3));
  EXPECT_EQ("((ab)(cd))", summed(4));
  EXPECT_EQ("(((ab)(cd))((ef)(gh)))", summed(8));
}

TEST(TreeSum, AlignedRunOfLeavesIsASubtree) {
  EXPECT_EQ(summed(8), "(" + summed(4) + summed(4, 4) + ")");
  EXPECT_EQ("((ef)(gh))", summed(4, 4));
}

TEST(TreeMerger, HasTheOrderOfTreeSum) {
  for (std::size_t count = 1; count <= 20; ++count) EXPECT_EQ(summed(count), merged(count)) << count;
}

TEST(TreeMerger, StartsAgainAfterTake) {
  const auto add = [](int a, int b) { return a + b; };
  TreeMerger<int, decltype(add)> merger(add);
  for (const int value : {1, 2, 3}) merger.add(value);

  EXPECT_EQ(6, merger.take());
  merger.add(7);
  EXPECT_EQ(7, merger.take());
}

}  // namespace
}  // namespace lamina
