// Matrix products against plain loops, and that their bits depend on nothing but their shape.
#include "kernels/cpu/gemm.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/random.h"

namespace lamina {
namespace {

using Matrix = std::vector<float>;

Matrix random_matrix(std::int64_t rows, std::int64_t columns, const char* name) {
  Matrix values(static_cast<std::size_t>(rows * columns));
  const RandomStream stream(1, name);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 2 * stream.uniform(0, i) - 1;
  return values;
}

const float& at(const Matrix& values, Strides strides, std::int64_t row, std::int64_t column) {
  return values[static_cast<std::size_t>(row * strides.row + column * strides.column)];
}

/// Largest |C - A B| over the bound k * 2^-24 * sum |a b| of a dot product's rounding.
double error_of(const GemmShape& s, const Matrix& a, const Matrix& b, const Matrix& c) {
  double worst = 0;
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < s.n; ++j) {
      double sum = 0, size = 1e-30;
      for (std::int64_t l = 0; l < s.k; ++l) {
        const double product = static_cast<double>(at(a, s.a, i, l)) * at(b, s.b, l, j);
        sum += product;
        size += std::abs(product);
      }
      const double bound = (static_cast<double>(s.k) + 1) * 0x1p-24 * size;
      worst = std::max(worst, std::abs(at(c, {s.c_row, 1}, i, j) - sum) / bound);
    }
  return worst;
}

constexpr std::int64_t kSizes[] = {1, 2, 11, 12, 13, 100};

TEST(Gemm, MatchesPlainLoopsOnEveryLayout) {
  for (const std::int64_t m : kSizes)
    for (const std::int64_t n : kSizes)
      for (const std::int64_t k : kSizes)
        for (const bool transposed : {false, true}) {
          const Strides a = transposed ? Strides{1, m} : Strides{k, 1};
          const GemmShape shape{.m = m, .n = n, .k = k, .a = a, .b = {n, 1}, .c_row = n};
          const Matrix left = random_matrix(m, k, "a"), right = random_matrix(k, n, "b");
          Matrix product(static_cast<std::size_t>(m * n), NAN);

          Gemm(shape).run(left.data(), right.data(), product.data());

          ASSERT_LE(error_of(shape, left, right, product), 1) << m << " x " << n << " x " << k;
        }
}

TEST(PackedGemm, MatchesPlainLoopsFromBothOrientationsOfB) {
  for (const std::int64_t m : kSizes)
    for (const std::int64_t n : kSizes)
      for (const std::int64_t k : kSizes)
        for (const bool transposed : {false, true}) {
          const Strides b = transposed ? Strides{1, k} : Strides{n, 1};
          const GemmShape shape{.m = m, .n = n, .k = k, .a = {k, 1}, .b = b, .c_row = n};
          const Matrix left = random_matrix(m, k, "a"), right = random_matrix(k, n, "b");
          Matrix product(static_cast<std::size_t>(m * n), NAN);
          PackedMatrix packed(k, n);

          packed.set(right.data(), b);
          PackedGemm(m, n, k, k, n).run(left.data(), packed, product.data());

          ASSERT_LE(error_of(shape, left, right, product), 1) << m << " x " << n << " x " << k;
        }
}

TEST(PackedGemm, SetReplacesTheMatrix) {
  const Matrix ones(16, 1.0f), twos(16, 2.0f);
  Matrix product(16);
  PackedMatrix packed(4, 4);
  packed.set(ones.data(), {4, 1});

  packed.set(twos.data(), {4, 1});
  PackedGemm(4, 4, 4, 4, 4).run(ones.data(), packed, product.data());

  EXPECT_EQ(product, Matrix(16, 8.0f));
}

TEST(Gemm, HasTheSameBitsWhateverTheThreadsAround) {
  const GemmShape shape{.m = 128, .n = 256, .k = 2048, .a = {1, 128}, .b = {256, 1}, .c_row = 256};
  const Matrix left = random_matrix(2048, 128, "a"), right = random_matrix(2048, 256, "b");
  Matrix expected(128 * 256), product(128 * 256);
  Gemm(shape).run(left.data(), right.data(), expected.data());

  for (const int threads : {2, 4}) {
    std::thread([&] {
      omp_set_num_threads(threads);
      Gemm(shape).run(left.data(), right.data(), product.data());
    }).join();

    EXPECT_EQ(0, std::memcmp(expected.data(), product.data(), product.size() * sizeof(float)));
  }
}

}  // namespace
}  // namespace lamina
