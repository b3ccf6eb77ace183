// A row of floats, vector by vector, with masked lanes behind its end. For sources that Highway compiles once
// per instruction set.
#if defined(LAMINA_KERNELS_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_LANES_INL_H_
#undef LAMINA_KERNELS_CPU_LANES_INL_H_
#else
#define LAMINA_KERNELS_CPU_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;

/// A full vector.
struct WholeVector {
  Vector load(const float* x) const { return hn::LoadU(Floats(), x); }
  void store(Vector v, float* x) const { hn::StoreU(v, Floats(), x); }
  Vector only(Vector v) const { return v; }
};

/// The first `count` lanes of a vector; load() fills the others with zeros, store() leaves their memory alone
/// (Highway's masked store may not, on some instruction sets), only() sets them to zero.
struct PartOfVector {
  std::size_t count;

  Vector load(const float* x) const {
    if constexpr (HWY_MEM_OPS_MIGHT_FAULT) {
      HWY_ALIGN float lanes[hn::MaxLanes(Floats())] = {};
      std::copy_n(x, count, lanes);
      return hn::Load(Floats(), lanes);
    } else {
      return hn::MaskedLoad(hn::FirstN(Floats(), count), Floats(), x);
    }
  }
  void store(Vector v, float* x) const {
    if constexpr (HWY_MEM_OPS_MIGHT_FAULT) {
      HWY_ALIGN float lanes[hn::MaxLanes(Floats())];
      hn::Store(v, Floats(), lanes);
      std::copy_n(lanes, count, x);
    } else {
      hn::BlendedStore(v, hn::FirstN(Floats(), count), Floats(), x);
    }
  }
  Vector only(Vector v) const { return hn::IfThenElseZero(hn::FirstN(Floats(), count), v); }
};

/// body(lanes, i) for the vectors that begin at i = 0, N, 2N, … of `size` floats.
template <class Body>
HWY_INLINE void for_each_vector(std::size_t size, const Body& body) {
  const std::size_t n = hn::Lanes(Floats());
  std::size_t i = 0;
  for (; i + n <= size; i += n) body(WholeVector{}, i);
  if (i < size) body(PartOfVector{size - i}, i);
}

HWY_INLINE Vector constant(float value) { return hn::Set(Floats(), value); }
HWY_INLINE float sum_of_lanes(Vector v) { return hn::GetLane(hn::SumOfLanes(Floats(), v)); }

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
