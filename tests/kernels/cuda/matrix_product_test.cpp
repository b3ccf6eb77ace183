// ctest: labels=gpu
#include "kernels/cuda/matrix_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/random_values.h"

namespace lamina::cuda {
namespace {

using Floats = std::vector<float>;

constexpr std::int64_t kRows = 16, kColumns = 32, kDepth = 64;

class MatrixProductTest : public ::testing::Test {
 protected:
  /// A [m, k] times B [n, k] transposed, as the time loop has it.
  Floats product(Operands operands) {
    const MatrixProduct multiply(device_,
                                 {.m = kRows,
                                  .n = kColumns,
                                  .k = kDepth,
                                  .transposed_B = true,
                                  .row_A = kDepth,
                                  .row_B = kDepth,
                                  .row_C = kColumns},
                                 operands);
    auto A = on_device(A_), B = on_device(B_);
    auto C = device_.allocate<float>(kRows * kColumns);
    multiply.run(A.view().data(), B.view().data(), C.view().data());
    Floats values(C.size());
    device_.to_host(C.view().data(), values.data(), values.size() * sizeof(float));
    return values;
  }

  std::vector<double> exact() const {
    std::vector<double> values;
    for (std::int64_t i = 0; i < kRows; ++i)
      for (std::int64_t j = 0; j < kColumns; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < kDepth; ++k)
          sum += double{A_[static_cast<std::size_t>(i * kDepth + k)]} *
                 double{B_[static_cast<std::size_t>(j * kDepth + k)]};
        values.push_back(sum);
      }
    return values;
  }

  double largest_error(Operands operands) {
    const Floats values = product(operands);
    const std::vector<double> truth = exact();
    double largest = 0;
    for (std::size_t i = 0; i < truth.size(); ++i)
      largest = std::max(largest, std::abs(values[i] - truth[i]));
    return largest;
  }

 private:
  Buffer<float> on_device(const Floats& values) {
    auto buffer = device_.allocate<float>(values.size());
    device_.to_device(values.data(), buffer.view().data(), values.size() * sizeof(float));
    return buffer;
  }

  Device device_{0};
  Floats A_ = test::random_values("A", kRows*kDepth), B_ = test::random_values("B", kColumns*kDepth);
};

// Of numbers up to 1: what is summed is at most kDepth, and a float of such a size has an ulp of 2^-17.
TEST_F(MatrixProductTest, DropsNothingUnlessAsked) { EXPECT_LT(largest_error(Operands::f32), 0x1p-17 * 8); }

// Each operand is off by 2^-11 of itself at most if it is rounded, by 2^-10 if its bits are cut off.
TEST_F(MatrixProductTest, TakesTenBitsOfTf32) {
  const double error = largest_error(Operands::tf32);

  EXPECT_GT(error, 0x1p-17 * 8) << "no bit was dropped";
  EXPECT_LT(error, kDepth * 2 * 0x1p-10);
}

}  // namespace
}  // namespace lamina::cuda
