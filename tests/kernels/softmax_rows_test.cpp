#include "kernels/cpu/softmax_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::softmax_rows {
namespace {

using Floats = std::vector<float>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<std::size_t> kSizes = {1, 2, 8, 15, 16, 17, 63, 64, 1000};

TEST(SoftmaxRows, AddTheBiasAndFindTheLargest) {
  for (const std::size_t size : kSizes) {
    const Floats bias = test::random_values("bias", size),
                 before = test::random_values("logits", size, -9, 9);
    Floats logits = before, expected(size);
    for (std::size_t i = 0; i < size; ++i) expected[i] = before[i] + bias[i];

    const float max = add_bias(bias, logits);

    EXPECT_TRUE(test::same_bits(logits, expected));
    EXPECT_EQ(max, *std::ranges::max_element(expected));
  }
  EXPECT_EQ(add_bias({}, {}), -kInfinity);
}

TEST(SoftmaxRows, SumExponentials) {
  for (const std::size_t size : kSizes) {
    const Floats logits = test::random_values("logits", size, -20, 0);
    double expected = 0;
    for (const float value : logits) expected += std::exp(static_cast<double>(value) + 1.5);

    EXPECT_NEAR(static_cast<double>(sum_exp(logits, -1.5f)) / expected, 1, 1e-6);
  }
  EXPECT_EQ(sum_exp({}, 3), 0);
}

TEST(SoftmaxRows, ScaleExponentials) {
  for (const std::size_t size : kSizes) {
    const Floats logits = test::random_values("logits", size, -20, 0);
    std::vector<double> expected;
    for (const float value : logits) expected.push_back(0.5 * std::exp(static_cast<double>(value) + 1.5));
    Floats out(size + 1, 7.0f);

    scaled_exp(logits, -1.5f, 0.5f, std::span(out).first(size));

    EXPECT_EQ(out[size], 7);  // nothing past the end
    EXPECT_TRUE(test::all_close(std::span(out).first(size), expected, 1e-6));
  }
}

TEST(SoftmaxRows, ReachZeroFarBelowTheLargest) {
  EXPECT_EQ(sum_exp(Floats{0, -2e4f, -1e30f, -kInfinity}, 0), 1);
}

TEST(SoftmaxRows, KeepWhatIsNotANumber) {
  for (const std::size_t place : {3, 20}) {  // in a vector and in the tail
    Floats logits(21);
    logits[place] = std::numeric_limits<float>::quiet_NaN();
    Floats out(21);

    scaled_exp(logits, 0, 1, out);

    EXPECT_TRUE(std::isnan(sum_exp(logits, 0)));
    EXPECT_TRUE(std::isnan(out[place]));
    EXPECT_TRUE(std::isnan(sum_exp(Floats{kInfinity, 0}, kInfinity)));
  }
}

}  // namespace
}  // namespace lamina::softmax_rows
