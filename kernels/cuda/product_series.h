// The products of runtime/product_series.h by cuBLASLt.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cuda/device.h"
#include "runtime/product_series.h"

namespace lamina::cuda {

/// Each product has its operands stored as is fastest here, which is tried out; all of them run as one CUDA
/// graph. `device` must outlive it.
std::unique_ptr<ProductSeries> make_cuda_product_series(Device& device, std::vector<Product> products);

}  // namespace lamina::cuda
