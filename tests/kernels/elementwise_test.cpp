#include "kernels/cpu/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "runtime/error.h"
#include "runtime/tree.h"
#include "tests/reference/optimizer.h"
#include "tests/support/close.h"
#include "tests/support/random_values.h"

namespace lamina::elementwise {
namespace {

using test::all_close;
using test::random_values;
using test::same_bits;
using Floats = std::vector<float>;

// One element, less and more than a vector, odd tails, more than one thread's chunk.
const std::vector<std::size_t> kSizes = {1, 3, 16, 37, 70001};

TEST(Elementwise, FillsCopiesAndAdds) {
  for (const std::size_t size : kSizes) {
    Floats x(size), y(size), expected(size);
    for (std::size_t i = 0; i < size; ++i) x[i] = static_cast<float>(i % 1000);
    for (std::size_t i = 0; i < size; ++i) expected[i] = x[i] + 3;

    fill(2, y, 3);
    add(2, x, y);
    EXPECT_EQ(y, expected);

    copy(2, x, y);
    EXPECT_EQ(y, x);
  }
}

TEST(Elementwise, RefusesSizesThatDiffer) {
  Floats three(3), four(4);

  EXPECT_THROW(copy(1, three, four), InternalError);
  EXPECT_THROW(add(1, three, four), InternalError);
  EXPECT_THROW(sgd(1, {}, three, four, four), InternalError);
  EXPECT_THROW(adam(1, {}, four, four, three, four), InternalError);
}

TEST(AllFinite, FindsOneNumberAnywhere) {
  for (const std::size_t size : kSizes) {
    Floats x(size, std::numeric_limits<float>::max());
    x[size / 3] = -std::numeric_limits<float>::denorm_min();
    EXPECT_TRUE(all_finite(2, x));
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      for (const std::size_t place : {std::size_t{0}, size / 2, size - 1}) {
        Floats spoilt = x;
        spoilt[place] = -bad;
        EXPECT_FALSE(all_finite(2, spoilt)) << bad << " at " << place << " of " << size;
      }
    }
  }
  EXPECT_TRUE(all_finite(2, Floats{}));
}

TEST(SumOfSquares, IsExactOnSmallIntegers) {
  for (const std::size_t size : kSizes) {
    Floats x(size);
    double expected = 0;
    for (std::size_t i = 0; i < size; ++i) {
      x[i] = static_cast<float>(i % 17) - 8;
      expected += static_cast<double>(x[i] * x[i]);
    }

    EXPECT_EQ(sum_of_squares(1, x), expected);
  }
}

TEST(SumOfSquares, OfNothingIsZero) { EXPECT_EQ(sum_of_squares(1, Floats()), 0); }

TEST(SumOfSquares, MergesPiecesInTheTree) {
  auto x = random_values("x", 60 * 4096 + 100);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], static_cast<int>(i % 40));  // sums round
  const auto piece = [&](std::size_t i) {
    return sum_of_squares(1,
                          std::span(x).subspan(i * 4096, std::min<std::size_t>(4096, x.size() - i * 4096)));
  };

  EXPECT_EQ(sum_of_squares(1, x), tree_sum(61, piece));
}

TEST(SumOfSquares, DoesNotOverflowOrDependOnThreads) {
  const auto x = random_values("x", 300001, -1e30, 1e30);
  double expected = 0;
  for (const float value : x) expected += static_cast<double>(value) * static_cast<double>(value);

  const double one = sum_of_squares(1, x);

  EXPECT_NEAR(one / expected, 1, 1e-12);
  EXPECT_EQ(sum_of_squares(2, x), one);
  EXPECT_EQ(sum_of_squares(4, x), one);
}

constexpr int kSteps = 5;
constexpr float kRate = 0.01f, kScale = 0.5f, kDecay = 0.1f, kMomentum = 0.9f, kBeta1 = 0.9f, kBeta2 = 0.99f;

// Values after kSteps updates with fresh gradients: update(step, gradient, value).
template <class Vector>
Vector trained(std::size_t size, const std::function<void(int, const Vector&, Vector&)>& update) {
  using Value = typename Vector::value_type;
  Vector value = test::converted<Value>(random_values("value", size));
  for (int step = 1; step <= kSteps; ++step)
    update(step, test::converted<Value>(random_values("gradient" + std::to_string(step), size)), value);
  return value;
}

Floats trained_by_sgd(int threads, std::size_t size) {
  Floats velocity(size);
  return trained<Floats>(size, [&](int, const Floats& gradient, Floats& value) {
    sgd(threads,
        {.learning_rate = kRate, .momentum = kMomentum, .weight_decay = kDecay, .gradient_scale = kScale},
        gradient, velocity, value);
  });
}

Floats trained_by_adam(int threads, std::size_t size, bool decoupled) {
  Floats first(size), second(size);
  return trained<Floats>(size, [&](int step, const Floats& gradient, Floats& value) {
    adam(threads,
         {.learning_rate = kRate,
          .beta1 = kBeta1,
          .beta2 = kBeta2,
          .epsilon = 1e-8f,
          .weight_decay = kDecay,
          .decoupled = decoupled,
          .correction1 = static_cast<float>(1 - std::pow(kBeta1, step)),
          .correction2 = static_cast<float>(1 - std::pow(kBeta2, step)),
          .gradient_scale = kScale},
         gradient, first, second, value);
  });
}

reference::Sgd expected_sgd() {
  reference::Sgd rule;
  rule.momentum = kMomentum;
  rule.decay = kDecay;
  return rule;
}

reference::Adam expected_adam(bool decoupled) {
  reference::Adam rule;
  rule.beta1 = kBeta1;
  rule.beta2 = kBeta2;
  rule.decay = kDecay;
  rule.decoupled = decoupled;
  return rule;
}

// The reference's rules know no gradient scale.
template <class Rule>
reference::Vector trained_by(Rule rule, std::size_t size) {
  using reference::Vector;
  return trained<Vector>(size, [&](int, Vector gradient, Vector& value) {
    for (double& g : gradient) g *= kScale;
    rule.update(kRate, gradient, value);
  });
}

TEST(Sgd, FollowsTheFormula) {
  for (const std::size_t size : kSizes) {
    const auto expected = trained_by(expected_sgd(), size);

    EXPECT_TRUE(all_close(trained_by_sgd(1, size), expected, 1e-6, 1));
  }
}

TEST(Adam, FollowsTheFormula) {
  for (const std::size_t size : kSizes) {
    const auto expected = trained_by(expected_adam(false), size);

    EXPECT_TRUE(all_close(trained_by_adam(1, size, false), expected, 1e-6, 1));
  }
}

TEST(AdamW, FollowsTheFormula) {
  for (const std::size_t size : kSizes) {
    const auto expected = trained_by(expected_adam(true), size);

    EXPECT_TRUE(all_close(trained_by_adam(1, size, true), expected, 1e-6, 1));
  }
}

TEST(Optimizers, DoNotDependOnThreadsOrPlace) {
  const std::size_t size = 200003;
  const Floats sgd_whole = trained_by_sgd(1, size), adam_whole = trained_by_adam(1, size, false);

  for (const int threads : {2, 4}) {
    EXPECT_TRUE(same_bits(trained_by_sgd(threads, size), sgd_whole));
    EXPECT_TRUE(same_bits(trained_by_adam(threads, size, false), adam_whole));
  }
  // Elements of a vector's body there are in the tail here.
  const std::size_t few = 13;
  EXPECT_TRUE(same_bits(trained_by_sgd(1, few), Floats(sgd_whole.begin(), sgd_whole.begin() + few)));
  EXPECT_TRUE(
      same_bits(trained_by_adam(1, few, false), Floats(adam_whole.begin(), adam_whole.begin() + few)));
}

}  // namespace
}  // namespace lamina::elementwise
