#include "kernels/cpu/softmax_rows.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax_rows.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lamina::softmax_rows::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Vectors = hn::ScalableTag<float>;
using Vector = hn::Vec<Vectors>;

// The last, incomplete vector of a row; `filler` stands in the lanes past the end.
HWY_INLINE Vector load_tail(Vectors d, const float* x, std::size_t count, float filler) {
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(hn::Set(d, filler), d, lanes);
  std::copy_n(x, count, lanes);
  return hn::Load(d, lanes);
}

HWY_INLINE void store_tail(Vectors d, Vector v, float* x, std::size_t count) {
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(v, d, lanes);
  std::copy_n(lanes, count, x);
}

// Highway's Exp turns NaN into 0.
HWY_INLINE Vector exp_of(Vectors d, Vector x) { return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x)); }

float add_bias(const float* bias, float* logits, std::size_t size) {
  const Vectors d;
  Vector largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= size; i += hn::Lanes(d)) {
    const Vector sum = hn::Add(hn::LoadU(d, logits + i), hn::LoadU(d, bias + i));
    hn::StoreU(sum, d, logits + i);
    largest = hn::Max(largest, sum);
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < size; ++i) result = std::max(result, logits[i] += bias[i]);
  return result;
}

float sum_exp(const float* logits, float max, std::size_t size) {
  const Vectors d;
  const Vector shift = hn::Set(d, max);
  Vector sum = hn::Zero(d);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= size; i += hn::Lanes(d))
    sum = hn::Add(sum, exp_of(d, hn::Sub(hn::LoadU(d, logits + i), shift)));
  if (i < size) {
    const Vector tail = load_tail(d, logits + i, size - i, -std::numeric_limits<float>::infinity());
    sum = hn::Add(sum, exp_of(d, hn::Sub(tail, shift)));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void scaled_exp(const float* logits, float max, float factor, float* out, std::size_t size) {
  const Vectors d;
  const Vector shift = hn::Set(d, max), scale = hn::Set(d, factor);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= size; i += hn::Lanes(d))
    hn::StoreU(hn::Mul(scale, exp_of(d, hn::Sub(hn::LoadU(d, logits + i), shift))), d, out + i);
  if (i == size) return;
  const Vector tail = load_tail(d, logits + i, size - i, max);
  store_tail(d, hn::Mul(scale, exp_of(d, hn::Sub(tail, shift))), out + i, size - i);
}

}  // namespace lamina::softmax_rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::softmax_rows {
namespace {

HWY_EXPORT(add_bias);
HWY_EXPORT(sum_exp);
HWY_EXPORT(scaled_exp);

}  // namespace

float add_bias(std::span<const float> bias, std::span<float> logits) {
  return HWY_DYNAMIC_DISPATCH(add_bias)(bias.data(), logits.data(), logits.size());
}

float sum_exp(std::span<const float> logits, float max) {
  return HWY_DYNAMIC_DISPATCH(sum_exp)(logits.data(), max, logits.size());
}

void scaled_exp(std::span<const float> logits, float max, float factor, std::span<float> out) {
  HWY_DYNAMIC_DISPATCH(scaled_exp)(logits.data(), max, factor, out.data(), logits.size());
}

}  // namespace lamina::softmax_rows
#endif
