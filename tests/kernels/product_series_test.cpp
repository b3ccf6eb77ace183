#include "kernels/cpu/product_series.h"

#include <gtest/gtest.h>

#include "runtime/error.h"

namespace lamina {
namespace {

TEST(ProductSeries, CountsItsOperations) {
  EXPECT_EQ((Product{.m = 2, .n = 3, .k = 5, .count = 7}.flops()), 2 * 2 * 3 * 5 * 7);
  EXPECT_EQ(flops_of({{.m = 2, .n = 3, .k = 5}, {.m = 1, .n = 1, .k = 1, .count = 4}}), 60 + 8);
  EXPECT_EQ(flops_of({}), 0);
}

TEST(ProductSeries, RunsOnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    const auto series = make_cpu_product_series({{.m = 4, .n = 8, .k = 16, .count = 3},
                                                 {.m = 1, .n = 2, .k = 1},
                                                 {.m = 5, .n = 7, .k = 3, .count = 0}},
                                                threads);
    series->run();
    series->run();
    EXPECT_EQ(series->products().size(), 3u);
  }
}

TEST(ProductSeries, RefusesProductsOfNothing) {
  EXPECT_THROW(make_cpu_product_series({{.m = 0, .n = 1, .k = 1}}, 1), InternalError);
}

}  // namespace
}  // namespace lamina
