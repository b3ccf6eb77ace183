// Products against plain loops, for any number of rows and columns, and that the bits of an element depend on
// its row and its column alone.
#include "kernels/cpu/panel_products.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <span>
#include <tuple>
#include <vector>

#include "runtime/tree.h"
#include "tests/reference/bf16.h"
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

/// Numbers whose end is the end of what may be read.
class AtTheEdge {
 public:
  explicit AtTheEdge(std::size_t size) : bytes_((size * sizeof(float) + kPage - 1) / kPage * kPage) {
    pages_ = static_cast<char*>(
        mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED || mprotect(pages_ + bytes_, kPage, PROT_NONE) != 0) std::abort();
    values_ = {reinterpret_cast<float*>(pages_ + bytes_) - size, size};
  }
  ~AtTheEdge() { munmap(pages_, bytes_ + kPage); }
  AtTheEdge(const AtTheEdge&) = delete;
  AtTheEdge& operator=(const AtTheEdge&) = delete;

  std::span<float> values() const { return values_; }

 private:
  static constexpr std::size_t kPage = 1 << 16;
  std::size_t bytes_;
  char* pages_;
  std::span<float> values_;
};

TEST_P(PanelProducts, ReadNothingBehindTheirResult) {
  const std::size_t m = rows;
  const Values left = transposed(a, rows);
  PanelMatrices matrices(1, k, n);
  LargeArray scratch;
  Values expected(m * n, 0.5f);
  const AtTheEdge sums(m * n);
  std::ranges::fill(sums.values(), 0.5f);
  matrices.set_rows(0, 0, rows_of(b, k));

  multiply_transposed(rows_of(left, k), m, matrices, /*accumulate=*/true, scratch, expected.data(), n);
  multiply_transposed(rows_of(left, k), m, matrices, /*accumulate=*/true, scratch, sums.values().data(), n);

  EXPECT_TRUE(same_bits(expected, Values(sums.values().begin(), sums.values().end())));
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

// --- bf16 -------------------------------------------------------------------------------------------------

float bf16(float value) { return static_cast<float>(reference::rounded_to_bf16(value)); }

Values rounded(const Values& values) {
  Values result;
  for (const float value : values) result.push_back(bf16(value));
  return result;
}

/// Every form that this CPU has.
std::vector<Operands> forms() {
  std::vector<Operands> all = {Operands::bf16_widened, Operands::bf16_pairs_imitated};
  if (has_bf16_pairs()) all.push_back(Operands::bf16_pairs);
  return all;
}

/// a b by the chain that the header promises.
Values product_of_pairs(const Values& a, const Values& b, std::size_t rows) {
  const std::size_t k = a.size() / rows, n = b.size() / k;
  const Values left = rounded(a), right = rounded(b);
  Values c(rows * n);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t l = 0; l < k; l += 2)
        for (const std::size_t element : {l + 1, l})
          if (element < k) c[i * n + j] += left[i * k + element] * right[element * n + j];
  return c;
}

/// A as the products take it.
struct RoundedRows {
  std::size_t count, stride;
  Values values;

  RoundedRows(const Values& a, std::size_t rows, Operands operands)
      : count(rows), stride(rounded_stride(a.size() / rows)), values(rows * stride, NAN) {
    round_rows(rows_of(a, rows), a.size() / rows, operands, values.data(), stride);
  }
  Rows rows() const { return {values.data(), count, stride}; }
};

class Bf16Products : public PanelProducts {};

TEST_P(Bf16Products, AreChainsOverPairsOfRoundedOperands) {
  const Values expected = product_of_pairs(a, b, rows);
  for (const Operands operands : forms()) {
    PanelMatrices matrices(2, k, n, operands);
    Values from_rows(rows * n, NAN), from_columns(rows * n, NAN);
    const RoundedRows left(a, rows, operands);

    matrices.set_rows(0, 0, rows_of(b, k));
    matrices.set_transposed(1, transposed(b, k).data());
    multiply(left.rows(), matrices, 0, from_rows.data(), n);
    multiply(left.rows(), matrices, 1, from_columns.data(), n);

    EXPECT_TRUE(same_bits(from_rows, expected)) << static_cast<int>(operands);
    EXPECT_TRUE(same_bits(from_columns, expected)) << static_cast<int>(operands);
  }
}

TEST_P(Bf16Products, AreTheSameOfTransposedMatrices) {
  const Values expected = product_of_pairs(a, b, rows), columns = transposed(a, rows);
  for (const Operands operands : forms()) {
    PanelMatrices matrices(1, k + 3, n, operands);
    const RoundedRows left(columns, k, operands);
    LargeArray scratch;
    Values once(rows * n, NAN), twice(rows * n);
    matrices.set_rows(0, 0, rows_of(random_values("earlier", (k + 3) * n), k + 3));

    matrices.set_rows(0, 0, rows_of(b, k));
    multiply_transposed(left.rows(), rows, matrices, /*accumulate=*/false, scratch, once.data(), n);
    twice = once;
    multiply_transposed(left.rows(), rows, matrices, /*accumulate=*/true, scratch, twice.data(), n);

    EXPECT_TRUE(same_bits(once, expected)) << static_cast<int>(operands);
    for (float& value : once) value *= 2;
    EXPECT_TRUE(same_bits(once, twice)) << static_cast<int>(operands);
  }
}

TEST_P(Bf16Products, SumOverBlocksInTreeOrder) {
  constexpr std::size_t kBlocks = 6;
  std::vector<Values> products;
  for (std::size_t i = 0; i < kBlocks; ++i)
    products.push_back(product_of_pairs(random_values("a" + std::to_string(i), rows * k),
                                        random_values("b" + std::to_string(i), k * n), rows));
  Values expected(rows * n);
  for (std::size_t j = 0; j < rows * n; ++j)
    expected[j] = tree_sum(kBlocks, [&](std::size_t i) { return products[i][j]; });

  for (const Operands operands : forms()) {
    PanelMatrices matrices(kBlocks, k, n, operands);
    Values left, sums(rows * n, NAN);
    for (std::size_t i = 0; i < kBlocks; ++i) {
      const RoundedRows part(random_values("a" + std::to_string(i), rows * k), rows, operands);
      left.insert(left.end(), part.values.begin(), part.values.end());
      matrices.set_rows(i, 0, rows_of(random_values("b" + std::to_string(i), k * n), k));
    }
    const std::size_t stride = rounded_stride(k);
    multiply_and_sum({left.data(), rows, stride}, rows * stride, matrices, 0, matrices.panels(), sums.data(),
                     n);

    EXPECT_TRUE(same_bits(sums, expected)) << static_cast<int>(operands);
  }
}

TEST_P(Bf16Products, TakeACentreFromTheirRowsBeforeTheyRound) {
  const Values of_columns = random_values("centre", n, 100, 200), of_k = random_values("centre", k, 100, 200);
  Values less_by_column = b, less_by_k = b;
  for (std::size_t i = 0; i < b.size(); ++i) {
    less_by_column[i] -= of_columns[i % n];
    less_by_k[i] -= of_k[i / n];
  }
  for (const Operands operands : forms()) {
    PanelMatrices matrices(2, k, n, operands);
    Values from_rows(rows * n, NAN), from_columns(rows * n, NAN);
    const RoundedRows left(a, rows, operands);

    matrices.set_rows(0, 0, rows_of(b, k), of_columns.data());
    matrices.set_transposed(1, transposed(b, k).data(), of_k.data());
    multiply(left.rows(), matrices, 0, from_rows.data(), n);
    multiply(left.rows(), matrices, 1, from_columns.data(), n);

    EXPECT_TRUE(same_bits(from_rows, product_of_pairs(a, less_by_column, rows)));
    EXPECT_TRUE(same_bits(from_columns, product_of_pairs(a, less_by_k, rows)));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Bf16Products,
                         testing::Combine(testing::Values(1, 7, 8, 9, 70), testing::Values(1, 2, 11, 100),
                                          testing::Values(1, 16, 33, 49, 100)));

TEST(Bf16Rows, AreRoundedInPlace) {
  constexpr std::size_t kRows = 3, kColumns = 44;
  const Values a = random_values("a", kRows * kColumns);
  for (const Operands operands : forms()) {
    Values in_place = a;
    const RoundedRows apart(a, kRows, operands);

    round_rows(rows_of(in_place, kRows), kColumns, operands, in_place.data(), kColumns);

    const std::size_t used = operands == Operands::bf16_widened ? kColumns : kColumns / 2;
    for (std::size_t row = 0; row < kRows; ++row)
      EXPECT_TRUE(same_bits(std::span(in_place).subspan(row * kColumns, used),
                            std::span(apart.values).subspan(row * kColumns, used)));
  }
}

// Ties of both kinds, the largest numbers, the smallest, and what has no value.
TEST(Bf16Rows, RoundToNearestEven) {
  const float infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  const Values a = {1.0f,      0x1.01p0f,   0x1.03p0f,     0x1.010002p0f,  -0x1.01p0f,   0x1.feffp5f,
                    0x1.ffp5f, 0.0f,        -0.0f,         most,           -most,        infinity,
                    -infinity, 0x1.fep127f, 0x1p-126f,     0x1p-149f,      0x1p-133f,    0x1.8p-133f,
                    3.14159f,  1e-40f,      0x1.00fffep0f, 0x1.ffffp-127f, -0x1.8p-134f, 7.0f};
  Values values(a.size());

  round_rows({a.data(), 1, a.size()}, a.size(), Operands::bf16_widened, values.data(), a.size());

  EXPECT_TRUE(same_bits(values, rounded(a)));
  EXPECT_EQ(values[1], 1.0f);
  EXPECT_EQ(values[2], 0x1.04p0f);
  EXPECT_EQ(values[9], infinity);
}

TEST(Bf16Products, DoNotHideNaNOrInfinity) {
  for (const Operands operands : forms())
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0x7f800001u),
                            std::numeric_limits<float>::infinity()}) {
      Values a(8, 1.0f), b = {0.0f}, c(8);
      a[3] = bad;
      PanelMatrices matrices(1, 1, 1, operands);
      matrices.set_rows(0, 0, rows_of(b, 1));
      const RoundedRows left(a, 8, operands);

      multiply(left.rows(), matrices, 0, c.data(), 1);

      for (std::size_t row = 0; row < 8; ++row) EXPECT_EQ(std::isnan(c[row]), row == 3);
    }
}

}  // namespace
}  // namespace lamina
