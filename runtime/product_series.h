// Matrix products alone, as fast as a device's library has them: the limit that the speed of a layer is
// compared with.
#pragma once

#include <cstdint>
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

inline double flops_of(const std::vector<Product>& products) {
  double flops = 0;
  for (const Product& product : products) flops += product.flops();
  return flops;
}

/// Products in f32 of random operands, laid out beforehand as the library likes them best, which a product of
/// two activations cannot have: a limit, not a promise.
class ProductSeries {
 public:
  virtual ~ProductSeries() = default;
  virtual const std::vector<Product>& products() const = 0;
  /// All of them, one after another. A device may still be at it when this returns.
  virtual void run() = 0;
};

}  // namespace lamina
