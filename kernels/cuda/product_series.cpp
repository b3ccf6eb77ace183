#include "kernels/cuda/product_series.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/recording.h"
#include "runtime/error.h"
#include "runtime/random.h"

namespace lamina::cuda {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Drawn once and repeated: large operands would take minutes to draw. Small numbers, so that products of
/// many stay far from infinity.
Buffer<float> operand(Device& device, std::size_t count) {
  constexpr std::size_t kDrawn = std::size_t{1} << 20;
  const RandomStream random(1, "product");
  std::vector<float> values(std::min(count, kDrawn));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(0, i) - 0.5f;
  Buffer<float> buffer = device.allocate<float>(count);
  for (std::size_t first = 0; first < count; first += values.size()) {
    const auto piece = buffer.view(first, std::min(values.size(), count - first));
    device.to_device(values.data(), piece.data(), piece.size_bytes());
  }
  return buffer;
}

MatrixProduct stored(Device& device, const Product& product, bool transposed_A, bool transposed_B) {
  return {device,
          {.m = product.m,
           .n = product.n,
           .k = product.k,
           .transposed_A = transposed_A,
           .transposed_B = transposed_B,
           .row_A = transposed_A ? product.m : product.k,
           .row_B = transposed_B ? product.k : product.n,
           .row_C = product.n}};
}

class CudaProductSeries final : public ProductSeries {
 public:
  CudaProductSeries(Device& device, std::vector<Product> products)
      : device_(device), products_(std::move(products)) {
    std::int64_t A = 0, B = 0, C = 0;
    for (const Product& product : products_) {
      check(product.m >= 1 && product.n >= 1 && product.k >= 1, "a product of nothing");
      A = std::max(A, product.m * product.k);
      B = std::max(B, product.k * product.n);
      C = std::max(C, product.m * product.n);
    }
    A_ = operand(device_, size(A));
    B_ = operand(device_, size(B));
    C_ = device_.allocate<float>(size(C));
    for (const Product& product : products_) fastest_.push_back(fastest(product));
  }

  const std::vector<Product>& products() const override { return products_; }

  void run() override {
    recording_.run(device_, {}, [&] {
      for (std::size_t i = 0; i < products_.size(); ++i) run(fastest_[i], products_[i].count);
    });
  }

 private:
  void run(const MatrixProduct& product, std::int64_t times) {
    for (std::int64_t i = 0; i < times; ++i)
      product.run(A_.view().data(), B_.view().data(), C_.view().data());
  }

  /// Of a few runs as a graph, the best of three.
  double seconds_of(const MatrixProduct& product, std::int64_t times) {
    constexpr int kUntimed = 2, kTimed = 3;
    Recording recording;
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kUntimed + kTimed; ++i) {
      device_.synchronize();
      const auto start = std::chrono::steady_clock::now();
      recording.run(device_, {}, [&] { run(product, times); });
      device_.synchronize();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (i >= kUntimed) best = std::min(best, took.count());
    }
    return best;
  }

  /// Each operand stored by rows or by columns.
  MatrixProduct fastest(const Product& product) {
    constexpr std::int64_t kTimes = 16;
    std::vector<MatrixProduct> candidates;
    std::vector<double> seconds;
    for (const bool transposed_A : {false, true})
      for (const bool transposed_B : {false, true}) {
        candidates.push_back(stored(device_, product, transposed_A, transposed_B));
        seconds.push_back(seconds_of(candidates.back(), std::min(product.count, kTimes)));
      }
    return std::move(candidates[size(std::ranges::min_element(seconds) - seconds.begin())]);
  }

  Device& device_;
  std::vector<Product> products_;
  Buffer<float> A_, B_, C_;  ///< of all products
  std::vector<MatrixProduct> fastest_;
  Recording recording_;
};

}  // namespace

std::unique_ptr<ProductSeries> make_cuda_product_series(Device& device, std::vector<Product> products) {
  return std::make_unique<CudaProductSeries>(device, std::move(products));
}

}  // namespace lamina::cuda
