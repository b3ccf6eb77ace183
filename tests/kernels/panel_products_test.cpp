// Products against plain loops, for any number of rows and columns, and that the bits of an element depend on
// its row and its column alone.
#include "kernels/cpu/panel_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "runtime/tree.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina {
namespace {

using test::random_values;
using test::same_bits;

using Values = std::vector<float>;

Rows rows_of(const Values& values, std::size_t count) {
  return {values.data(), count, values.size() / count};
}

Values transposed(const Values& values, std::size_t rows) {
  const std::size_t columns = values.size() / rows;
  Values result(values.size());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < columns; ++j) result[j * rows + i] = values[i * columns + j];
  return result;
}

/// Largest |c - a b| over the bound (k + 1) * 2^-24 * sum |a b| of a dot product's rounding.
double error_of(const Values& a, const Values& b, const Values& c, std::size_t rows) {
  const std::size_t k = a.size() / rows, n = b.size() / k;
  double worst = 0;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0, size = 1e-30;
      for (std::size_t l = 0; l < k; ++l) {
        const double product = static_cast<double>(a[i * k + l]) * b[l * n + j];
        sum += product;
        size += std::abs(product);
      }
      worst = std::max(worst, std::abs(c[i * n + j] - sum) / ((static_cast<double>(k) + 1) * 0x1p-24 * size));
    }
  return worst;
}

/// Rows, k and columns of a product.
class PanelProducts : public testing::TestWithParam<std::tuple<int, int, int>> {
 protected:
  const std::size_t rows = static_cast<std::size_t>(std::get<0>(GetParam()));
  const std::size_t k = static_cast<std::size_t>(std::get<1>(GetParam()));
  const std::size_t n = static_cast<std::size_t>(std::get<2>(GetParam()));
  const Values a = random_values("a", rows*k), b = random_values("b", k*n);
};

TEST_P(PanelProducts, MatchPlainLoopsFromBothOrientationsOfB) {
  PanelMatrices matrices(2, k, n);
  Values from_rows(rows * n, NAN), from_columns(rows * n, NAN);

  matrices.set_rows(0, 0, rows_of(b, k));
  matrices.set_transposed(1, transposed(b, k).data());
  multiply(rows_of(a, rows), matrices, 0, from_rows.data(), n);
  multiply(rows_of(a, rows), matrices, 1, from_columns.data(), n);

  EXPECT_LE(error_of(a, b, from_rows, rows), 1);
  EXPECT_TRUE(same_bits(from_rows, from_columns));
}

TEST_P(PanelProducts, HaveTheSameBitsRowByRowAndColumnByColumn) {
  PanelMatrices matrices(1, k, n), column(1, k, 1);
  Values whole(rows * n), by_rows(rows * n, NAN), by_columns(rows * n, NAN);
  matrices.set_rows(0, 0, rows_of(b, k));

  multiply(rows_of(a, rows), matrices, 0, whole.data(), n);
  for (std::size_t row = 0; row < rows; ++row)
    multiply(rows_of(a, rows).from(row, 1), matrices, 0, &by_rows[row * n], n);
  for (std::size_t j = 0; j < n; ++j) {
    column.set_rows(0, 0, {&b[j], k, n});
    multiply(rows_of(a, rows), column, 0, &by_columns[j], n);
  }

  EXPECT_TRUE(same_bits(whole, by_rows));
  EXPECT_TRUE(same_bits(whole, by_columns));
}

TEST_P(PanelProducts, SumOverBlocksInTreeOrder) {
  for (const std::size_t blocks : {1, 2, 3, 6, 8}) {
    const Values a_of_blocks = random_values("a of blocks", blocks * rows * k);
    PanelMatrices matrices(blocks, k, n);
    Values products(blocks * rows * n), expected(rows * n), sums(rows * n, NAN);
    for (std::size_t i = 0; i < blocks; ++i) {
      matrices.set_rows(i, 0, rows_of(random_values("b" + std::to_string(i), k * n), k));
      multiply({&a_of_blocks[i * rows * k], rows, k}, matrices, i, &products[i * rows * n], n);
    }
    for (std::size_t j = 0; j < rows * n; ++j)
      expected[j] = tree_sum(blocks, [&](std::size_t i) { return products[i * rows * n + j]; });

    for (std::size_t panel = 0; panel < matrices.panels(); ++panel)
      multiply_and_sum({a_of_blocks.data(), rows, k}, rows * k, matrices, panel, panel + 1, sums.data(), n);

    EXPECT_TRUE(same_bits(expected, sums)) << blocks << " blocks";
  }
}

TEST_P(PanelProducts, OfTransposedMatricesMatchPlainLoopsAndAccumulate) {
  const std::size_t m = rows;
  const Values left = transposed(a, rows);  // [k, m]
  PanelMatrices matrices(1, k + 1, n);      // room for a row that is not there
  LargeArray scratch;
  Values once(m * n, NAN), twice(m * n);
  matrices.set_rows(0, 0, rows_of(b, k));

  multiply_transposed(rows_of(left, k), m, matrices, /*accumulate=*/false, scratch, once.data(), n);
  twice = once;
  multiply_transposed(rows_of(left, k), m, matrices, /*accumulate=*/true, scratch, twice.data(), n);

  EXPECT_LE(error_of(a, b, once, m), 1);
  for (float& value : once) value *= 2;
  EXPECT_TRUE(same_bits(once, twice));
}

TEST_P(PanelProducts, OfTransposedMatricesHaveTheBitsOfPlainOnes) {
  PanelMatrices matrices(1, k, n);
  LargeArray scratch;
  Values plain(rows * n), of_transposed(rows * n, NAN);
  matrices.set_rows(0, 0, rows_of(b, k));

  multiply(rows_of(a, rows), matrices, 0, plain.data(), n);
  multiply_transposed(rows_of(transposed(a, rows), k), rows, matrices, false, scratch, of_transposed.data(),
                      n);

  EXPECT_TRUE(same_bits(plain, of_transposed));
}

INSTANTIATE_TEST_SUITE_P(Sizes, PanelProducts,
                         testing::Combine(testing::Values(1, 2, 7, 8, 9, 20, 70), testing::Values(1, 12, 100),
                                          testing::Values(1, 11, 16, 33, 48, 49, 100)));

TEST(PanelProducts, PutNothingBehindTheirColumns) {
  constexpr std::size_t rows = 9, k = 5, n = 17, stride = 24;
  const Values a = random_values("a", rows * k), b = random_values("b", k * n);
  PanelMatrices matrices(1, k, n);
  Values c(rows * stride, 3.0f);
  matrices.set_rows(0, 0, rows_of(b, k));

  multiply(rows_of(a, rows), matrices, 0, c.data(), stride);

  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t j = n; j < stride; ++j) EXPECT_EQ(c[row * stride + j], 3) << row << ", " << j;
}

TEST(PanelProducts, DoNotHideNaN) {
  Values a(8, 1.0f), c(8);
  a[3] = NAN;
  PanelMatrices matrices(1, 1, 1);
  const Values b = {0.0f};
  matrices.set_rows(0, 0, rows_of(b, 1));

  multiply(rows_of(a, 8), matrices, 0, c.data(), 1);

  for (std::size_t row = 0; row < 8; ++row) EXPECT_EQ(std::isnan(c[row]), row == 3);
}

}  // namespace
}  // namespace lamina
