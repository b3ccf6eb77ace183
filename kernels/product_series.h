// Matrix products alone, as fast as this machine's library has them: the limit that the speed of a layer is
// compared with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace lamina {

/// C [m, n] = A [m, k] * B [k, n], `count` times in a row.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t count = 1;

  double flops() const {
    return 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) *
           static_cast<double>(count);
  }
};

double flops_of(const std::vector<Product>& products);

/// Products of operands of their own, each B laid out beforehand as the library likes it best, which a
/// product of two activations cannot have, and each product cut into calls in the way that is fastest here: a
/// limit, not a promise. In f32, on CPUs.
class ProductSeries {
 public:
  /// Tries out the cuts. Each product is shared among `threads`.
  ProductSeries(std::vector<Product> products, int threads);
  ~ProductSeries();
  ProductSeries(ProductSeries&&) noexcept;
  ProductSeries& operator=(ProductSeries&&) noexcept;

  const std::vector<Product>& products() const;
  /// All of them, one after another.
  void run();

 private:
  struct Operands;
  std::unique_ptr<Operands> operands_;
};

}  // namespace lamina
