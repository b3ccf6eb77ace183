// What products rely on: zeros, alignment, and memory that stays.
#include "kernels/cpu/large_array.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace lamina {
namespace {

TEST(LargeArray, IsZeroedAndAlignedToCacheLines) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{3} << 19}) {
    const LargeArray array(size);

    EXPECT_EQ(array.size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data()) % 64, 0u);
    EXPECT_TRUE(std::all_of(array.data(), array.data() + size, [](float value) { return value == 0; }));
  }
}

TEST(LargeArray, KeepsItsMemoryWhenItShrinks) {
  LargeArray array(1000);
  const float* before = array.data();

  array.resize(10);
  array.resize(1000);

  EXPECT_EQ(array.data(), before);
}

TEST(LargeArray, IsEmptyAtFirst) {
  EXPECT_TRUE(LargeArray().empty());
  EXPECT_TRUE(LargeArray(0).empty());
}

}  // namespace
}  // namespace lamina
