// The products of runtime/product_series.h by oneDNN.
#pragma once

#include <memory>
#include <vector>

#include "runtime/product_series.h"

namespace lamina {

/// Products of operands of their own, each shared among `threads` and cut into calls in the way that is
/// fastest here, which is tried out.
std::unique_ptr<ProductSeries> make_cpu_product_series(std::vector<Product> products, int threads);

}  // namespace lamina
