// ctest: labels=unit,gpu timeout=120
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/support/close.h"
#include "tests/support/device_tensor.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

using Floats = std::vector<float>;

// Less and more than a warp, a block of threads, a piece of a sum.
const std::vector<std::size_t> kSizes = {1, 7, 31, 257, 4096, 9001};

/// Of all magnitudes, denormal ones among them: sums round, quotients too.
Floats wild_values(std::string_view name, std::size_t size) {
  Floats values = random_values(name, size);
  for (std::size_t i = 0; i < size; ++i) values[i] = std::ldexp(values[i], static_cast<int>(i % 50) - 40);
  if (size > 5) values[5] = std::numeric_limits<float>::denorm_min();
  return values;
}

Floats joined(const std::vector<DeviceTensor*>& tensors) {
  Floats all;
  for (DeviceTensor* tensor : tensors)
    for (const float value : tensor->host()) all.push_back(value);
  return all;
}

class CudaElementwise : public ::testing::Test {
 protected:
  const std::unique_ptr<Backend> cuda_ = make_cuda_backend(0), cpu_ = make_cpu_backend(1);

  /// What `work(backend)` gives has the same bits on both.
  template <class Work>
  void expect_same_bits(const Work& work) {
    EXPECT_TRUE(same_bits(work(*cuda_), work(*cpu_)));
  }
};

TEST_F(CudaElementwise, FillsAndCopies) {
  for (const std::size_t size : kSizes) {
    DeviceTensor x(*cuda_, wild_values("x", size)), y(*cuda_, size), z(*cuda_, size);

    cuda_->copy(x.view(), y.view());
    cuda_->fill(z.view(), -0.0f);

    EXPECT_TRUE(same_bits(y.host(), wild_values("x", size)));
    EXPECT_TRUE(same_bits(z.host(), Floats(size, -0.0f)));
  }
}

TEST_F(CudaElementwise, AddsAsTheCpuDoes) {
  for (const std::size_t size : kSizes)
    expect_same_bits([&](Backend& backend) {
      DeviceTensor x(backend, wild_values("x", size)), y(backend, wild_values("y", size));
      backend.add(x.view(), y.view());
      return y.host();
    });
}

TEST_F(CudaElementwise, SumsSquaresAsTheCpuDoes) {
  for (const std::size_t size : {1, 9, 4096, 4103, 61 * 4096 + 100})
    expect_same_bits([&](Backend& backend) {
      DeviceTensor x(backend, wild_values("x", size));
      return std::vector<double>{backend.sum_of_squares(x.view())};
    });
  EXPECT_EQ(cuda_->sum_of_squares({}), 0);
}

TEST_F(CudaElementwise, FindsOneNumberAnywhere) {
  for (const std::size_t size : kSizes) {
    Floats x(size, std::numeric_limits<float>::max());
    x[size / 3] = -std::numeric_limits<float>::denorm_min();
    EXPECT_TRUE(cuda_->all_finite(DeviceTensor(*cuda_, x).view()));
    for (const float bad : {std::nanf(""), -std::numeric_limits<float>::infinity()})
      for (const std::size_t place : {std::size_t{0}, size / 2, size - 1}) {
        Floats spoilt = x;
        spoilt[place] = bad;
        EXPECT_FALSE(cuda_->all_finite(DeviceTensor(*cuda_, spoilt).view()))
            << bad << " at " << place << " of " << size;
      }
  }
  EXPECT_TRUE(cuda_->all_finite({}));
}

TEST_F(CudaElementwise, RemembersWhereNumbersWereNotFinite) {
  const auto checks = cuda_->make_finite_checks(4);
  Floats spoilt(5000, 1.0f);
  spoilt[4321] = std::nanf("");
  DeviceTensor good(*cuda_, Floats(5000, 1.0f)), bad(*cuda_, spoilt);

  checks->look(0, good.view());
  checks->look(1, {});
  checks->look(2, bad.view());
  cuda_->fill(bad.view(), 0);  // it was looked at as it was
  checks->look(2, bad.view());

  EXPECT_EQ(checks->take_found(), (std::vector<bool>{false, false, true, false}));
  EXPECT_EQ(checks->take_found(), std::vector<bool>(4));
}

constexpr int kSteps = 3;

TEST_F(CudaElementwise, UpdatesByMomentumAsTheCpuDoes) {
  for (const std::size_t size : kSizes)
    expect_same_bits([&](Backend& backend) {
      DeviceTensor value(backend, wild_values("value", size)), velocity(backend, Floats(size));
      for (int step = 1; step <= kSteps; ++step) {
        DeviceTensor gradient(backend, wild_values("gradient" + std::to_string(step), size));
        backend.sgd(/*learning_rate=*/0.01f, /*momentum=*/0.9f, /*weight_decay=*/0.1f,
                    /*gradient_scale=*/0.3f, gradient.view(), velocity.view(), value.view());
      }
      return joined({&value, &velocity});
    });
}

Floats trained_by_adam(Backend& backend, std::size_t size, bool decoupled) {
  DeviceTensor value(backend, wild_values("value", size)), first(backend, Floats(size)),
      second(backend, Floats(size));
  for (int step = 1; step <= kSteps; ++step) {
    DeviceTensor gradient(backend, wild_values("gradient" + std::to_string(step), size));
    backend.adam({.learning_rate = 0.01f,
                  .beta1 = 0.9f,
                  .beta2 = 0.99f,
                  .epsilon = 1e-8f,
                  .weight_decay = 0.1f,
                  .decoupled = decoupled,
                  .correction1 = static_cast<float>(1 - std::pow(0.9, step)),
                  .correction2 = static_cast<float>(1 - std::pow(0.99, step)),
                  .gradient_scale = 0.3f},
                 gradient.view(), first.view(), second.view(), value.view());
  }
  return joined({&value, &first, &second});
}

TEST_F(CudaElementwise, UpdatesByAdamAsTheCpuDoes) {
  for (const bool decoupled : {false, true})
    for (const std::size_t size : kSizes)
      expect_same_bits([&](Backend& backend) { return trained_by_adam(backend, size, decoupled); });
}

TEST_F(CudaElementwise, RefusesSizesThatDiffer) {
  DeviceTensor three(*cuda_, Floats(3)), four(*cuda_, Floats(4));
  Floats host(3);

  EXPECT_THROW(cuda_->copy(three.view(), four.view()), InternalError);
  EXPECT_THROW(cuda_->add(three.view(), four.view()), InternalError);
  EXPECT_THROW(cuda_->sgd(1, 1, 1, 1, three.view(), four.view(), four.view()), InternalError);
  EXPECT_THROW(cuda_->adam({}, four.view(), four.view(), three.view(), four.view()), InternalError);
  EXPECT_THROW(cuda_->to_device(host, four.view()), InternalError);
  EXPECT_THROW(cuda_->to_host(four.view(), host), InternalError);
}

}  // namespace
}  // namespace lamina::test
