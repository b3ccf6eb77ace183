#include "kernels/cpu/block_tree.h"

#include "runtime/tree.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/block_tree.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <std::size_t kCount, class D>
HWY_INLINE hn::Vec<D> tree(D d, const float* leaves, std::size_t stride) {
  if constexpr (kCount == 1) {
    return hn::LoadU(d, leaves);
  } else {
    return hn::Add(tree<kCount / 2>(d, leaves, stride),
                   tree<kCount / 2>(d, leaves + kCount / 2 * stride, stride));
  }
}

template <std::size_t kCount>
HWY_INLINE void add_tree(const float* leaves, std::size_t stride, std::size_t size, float* out) {
  const hn::ScalableTag<float> vectors;
  const hn::CappedTag<float, 1> scalars;
  std::size_t i = 0;
  for (; i + hn::Lanes(vectors) <= size; i += hn::Lanes(vectors))
    hn::StoreU(tree<kCount>(vectors, leaves + i, stride), vectors, out + i);
  for (; i < size; ++i) hn::StoreU(tree<kCount>(scalars, leaves + i, stride), scalars, out + i);
}

void add_in_tree_order(const float* leaves, std::size_t count, std::size_t stride, std::size_t size,
                       float* out) {
  switch (count) {
    case 1:
      return add_tree<1>(leaves, stride, size, out);
    case 2:
      return add_tree<2>(leaves, stride, size, out);
    case 4:
      return add_tree<4>(leaves, stride, size, out);
    case 8:
      return add_tree<8>(leaves, stride, size, out);
    case 16:
      return add_tree<16>(leaves, stride, size, out);
    default:
      for (std::size_t i = 0; i < size; ++i)
        out[i] = tree_sum(count, [&](std::size_t k) { return leaves[k * stride + i]; });
  }
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina {

HWY_EXPORT(add_in_tree_order);

void add_in_tree_order(const float* leaves, std::size_t count, std::size_t stride, std::size_t size,
                       float* out) {
  HWY_DYNAMIC_DISPATCH(add_in_tree_order)(leaves, count, stride, size, out);
}

}  // namespace lamina
#endif
