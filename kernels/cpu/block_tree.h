// The sum of equally long rows in the order of runtime/tree.h, vectorized.
#pragma once

#include <cstddef>

namespace lamina {

/// out[i] = sum over k of leaves[k * stride + i], i < size, in tree order; `count` >= 1.
void add_in_tree_order(const float* leaves, std::size_t count, std::size_t stride, std::size_t size,
                       float* out);

}  // namespace lamina
