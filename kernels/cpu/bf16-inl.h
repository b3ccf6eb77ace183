// bfloat16, the upper half of a float, in vectors of 32 bits. For sources that Highway compiles once per
// instruction set.
#if defined(LAMINA_KERNELS_CPU_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_BF16_INL_H_
#undef LAMINA_KERNELS_CPU_BF16_INL_H_
#else
#define LAMINA_KERNELS_CPU_BF16_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Words = hn::RebindToUnsigned<D>;

constexpr std::uint32_t kUpperHalf = 0xffff0000u;

/// To nearest, ties to even; a NaN stays one.
template <class D>
HWY_INLINE hn::Vec<D> rounded(D floats, hn::Vec<D> v) {
  const Words<D> words;
  const auto bits = hn::BitCast(words, v);
  const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
  const auto sum = hn::Add(bits, hn::Add(hn::Set(words, 0x7fff), last));
  const auto quiet = hn::Or(bits, hn::Set(words, 0x400000));
  const auto either = hn::IfThenElse(hn::RebindMask(words, hn::IsNaN(v)), quiet, sum);
  return hn::BitCast(floats, hn::And(either, hn::Set(words, kUpperHalf)));
}

/// Of rounded floats: the even one goes to the lower half.
template <class D>
HWY_INLINE hn::Vec<D> pair_of(D floats, hn::Vec<D> even, hn::Vec<D> odd) {
  const Words<D> words;
  const auto lower = hn::ShiftRight<16>(hn::BitCast(words, even));
  return hn::BitCast(floats, hn::Or(lower, hn::BitCast(words, odd)));
}

template <class D>
HWY_INLINE hn::Vec<D> even_of_pair(D floats, hn::Vec<D> pairs) {
  return hn::BitCast(floats, hn::ShiftLeft<16>(hn::BitCast(Words<D>(), pairs)));
}

template <class D>
HWY_INLINE hn::Vec<D> odd_of_pair(D floats, hn::Vec<D> pairs) {
  const Words<D> words;
  return hn::BitCast(floats, hn::And(hn::BitCast(words, pairs), hn::Set(words, kUpperHalf)));
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
