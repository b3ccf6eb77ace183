#include "kernels/cpu/lstm_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/lstm_rows.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lamina::lstm_rows::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<float>;
using Vector = hn::Vec<Tag>;

// Loads and stores of the whole vectors of a row, and of its last, incomplete one (zeros past the end): the
// same arithmetic then serves both.
struct Whole {
  HWY_INLINE Vector load(const float* x) const { return hn::LoadU(Tag(), x); }
  HWY_INLINE void store(Vector v, float* x) const { hn::StoreU(v, Tag(), x); }
  HWY_INLINE Vector live(Vector v) const { return v; }
};
struct Tail {
  std::size_t count;
  HWY_INLINE Vector load(const float* x) const {
    HWY_ALIGN float lanes[hn::MaxLanes(Tag())] = {};
    std::copy_n(x, count, lanes);
    return hn::Load(Tag(), lanes);
  }
  HWY_INLINE void store(Vector v, float* x) const {
    HWY_ALIGN float lanes[hn::MaxLanes(Tag())];
    hn::Store(v, Tag(), lanes);
    std::copy_n(lanes, count, x);
  }
  HWY_INLINE Vector live(Vector v) const { return hn::IfThenElseZero(hn::FirstN(Tag(), count), v); }
};

// work(at, access) for every vector of a row.
template <class Work>
HWY_INLINE void for_vectors(std::size_t size, const Work& work) {
  const std::size_t lanes = hn::Lanes(Tag());
  std::size_t at = 0;
  for (; at + lanes <= size; at += lanes) work(at, Whole());
  if (at < size) work(at, Tail{size - at});
}

HWY_INLINE float total(Vector v) { return hn::GetLane(hn::SumOfLanes(Tag(), v)); }

// Highway's Exp and Tanh turn NaN into numbers; a NaN must stay one, to be noticed.
HWY_INLINE Vector keep_nan(Vector x, Vector y) { return hn::IfThenElse(hn::IsNaN(x), x, y); }
HWY_INLINE Vector tanh_of(Vector x) { return keep_nan(x, hn::Tanh(Tag(), x)); }
HWY_INLINE Vector sigmoid(Vector x) {
  const Vector one = hn::Set(Tag(), 1.0f);
  const Vector bounded = hn::Min(hn::Neg(x), hn::Set(Tag(), 88.0f));
  return keep_nan(x, hn::Div(one, hn::Add(one, hn::Exp(Tag(), bounded))));
}

HWY_INLINE Vector normalized(Vector a, Normalizer norm) {
  return hn::Mul(hn::Sub(a, hn::Set(Tag(), norm.mean)), hn::Set(Tag(), norm.scale));
}

// y += x, unless nobody wants it.
template <class Access>
HWY_INLINE void accumulate(const Access& access, Vector x, float* y) {
  access.store(hn::Add(access.load(y), x), y);
}

Moments row_moments(const float* x, std::size_t size) {
  Vector sum = hn::Zero(Tag());
  for_vectors(size, [&](std::size_t at, auto access) { sum = hn::Add(sum, access.load(x + at)); });
  const float mean = total(sum) / static_cast<float>(size);
  const Vector center = hn::Set(Tag(), mean);
  Vector squares = hn::Zero(Tag());
  for_vectors(size, [&](std::size_t at, auto access) {
    const Vector d = access.live(hn::Sub(access.load(x + at), center));
    squares = hn::MulAdd(d, d, squares);
  });
  return {mean, total(squares)};
}

void normalize_row(Normalizer norm, const float* gain, const float* bias, float* a, float* out,
                   std::size_t size) {
  for_vectors(size, [&](std::size_t at, auto access) {
    const Vector n = normalized(access.load(a + at), norm);
    access.store(n, a + at);
    access.store(hn::MulAdd(access.load(gain + at), n, access.load(bias + at)), out + at);
  });
}

void gates_forward_row(const GatesForward& row, std::size_t units) {
  for_vectors(units, [&](std::size_t at, auto access) {
    const auto pre_activation = [&](std::size_t gate) {
      const std::size_t i = gate * units + at;
      const Vector x_term = access.load(row.x_term + i);
      const Vector a = access.load(row.a_h + i);
      if (row.gain == nullptr) return hn::Add(a, x_term);
      const Vector n = normalized(a, row.norm);
      access.store(n, row.a_h + i);
      return hn::MulAdd(access.load(row.gain + i), n, x_term);
    };
    const Vector f = sigmoid(pre_activation(0)), i = sigmoid(pre_activation(1));
    const Vector o = sigmoid(pre_activation(2)), g = tanh_of(pre_activation(3));
    access.store(f, row.gates + at);
    access.store(i, row.gates + units + at);
    access.store(o, row.gates + 2 * units + at);
    access.store(g, row.gates + 3 * units + at);
    access.store(hn::MulAdd(f, access.load(row.c_before + at), hn::Mul(i, g)), row.c + at);
  });
}

void output_forward_row(const OutputForward& row, std::size_t units) {
  for_vectors(units, [&](std::size_t at, auto access) {
    Vector y = access.load(row.c + at);
    if (row.gain != nullptr)
      y = hn::MulAdd(access.load(row.gain + at), normalized(y, row.norm), access.load(row.bias + at));
    const Vector squashed = tanh_of(y);
    access.store(squashed, row.squashed + at);
    access.store(hn::Mul(access.load(row.o + at), squashed), row.h + at);
  });
}

Sums output_backward_row(const OutputBackward& row, std::size_t units) {
  Vector sum = hn::Zero(Tag()), sum_n = hn::Zero(Tag());
  const Vector one = hn::Set(Tag(), 1.0f);
  for_vectors(units, [&](std::size_t at, auto access) {
    const Vector dh = access.load(row.dh + at), s = access.load(row.squashed + at);
    const Vector dy = hn::Mul(hn::Mul(dh, access.load(row.o + at)), hn::NegMulAdd(s, s, one));
    access.store(hn::Mul(dh, s), row.d_o + at);
    if (row.gain == nullptr) return access.store(dy, row.dn + at);
    const Vector n = access.live(normalized(access.load(row.c + at), row.norm));
    const Vector dn = hn::Mul(access.load(row.gain + at), dy);
    access.store(dn, row.dn + at);
    accumulate(access, hn::Mul(dy, n), row.d_gain + at);
    accumulate(access, dy, row.d_bias + at);
    sum = hn::Add(sum, dn);
    sum_n = hn::MulAdd(dn, n, sum_n);
  });
  return {total(sum), total(sum_n)};
}

// The gradient into the cell state.
template <class Access>
HWY_INLINE Vector cell_gradient(const GatesBackward& row, std::size_t at, const Access& access) {
  const Vector dn = access.load(row.dn + at), d_c = access.load(row.d_c + at);
  if (row.gain_h == nullptr) return hn::Add(d_c, dn);
  const Vector n = normalized(access.load(row.c + at), row.norm_c);
  const Vector centred = hn::Sub(dn, hn::Set(Tag(), row.mean_dn));
  const Vector through = hn::NegMulAdd(n, hn::Set(Tag(), row.mean_dn_n), centred);
  return hn::MulAdd(hn::Set(Tag(), row.norm_c.scale), through, d_c);
}

Sums gates_backward_row(const GatesBackward& row, std::size_t units) {
  Vector sum = hn::Zero(Tag()), sum_n = hn::Zero(Tag());
  const Vector one = hn::Set(Tag(), 1.0f);
  for_vectors(units, [&](std::size_t at, auto access) {
    const Vector f = access.load(row.gates + at), i = access.load(row.gates + units + at);
    const Vector o = access.load(row.gates + 2 * units + at), g = access.load(row.gates + 3 * units + at);
    const Vector dc = cell_gradient(row, at, access);
    const auto through_sigmoid = [&](Vector d, Vector s) { return hn::Mul(d, hn::Mul(s, hn::Sub(one, s))); };
    const auto finish = [&](std::size_t gate, Vector dz) {
      const std::size_t j = gate * units + at;
      access.store(dz, row.gates + j);
      accumulate(access, dz, row.d_bias + j);
      if (row.gain_h == nullptr) return;
      const Vector n_h = access.load(row.n_h + j);
      accumulate(access, hn::Mul(dz, n_h), row.d_gain_h + j);
      accumulate(access, hn::Mul(dz, access.load(row.n_x + j)), row.d_gain_x + j);
      const Vector dn = hn::Mul(access.load(row.gain_h + j), dz);
      sum = hn::Add(sum, dn);
      sum_n = hn::MulAdd(dn, n_h, sum_n);
    };
    finish(0, through_sigmoid(hn::Mul(dc, access.load(row.c_before + at)), f));
    finish(1, through_sigmoid(hn::Mul(dc, g), i));
    finish(2, through_sigmoid(access.load(row.d_o + at), o));
    finish(3, hn::Mul(hn::Mul(dc, i), hn::NegMulAdd(g, g, one)));
    access.store(hn::Mul(dc, f), row.d_c + at);
  });
  return {total(sum), total(sum_n)};
}

Sums normalized_sums_row(const float* gain, const float* dz, const float* n, std::size_t size) {
  Vector sum = hn::Zero(Tag()), sum_n = hn::Zero(Tag());
  for_vectors(size, [&](std::size_t at, auto access) {
    const Vector dn = hn::Mul(access.load(gain + at), access.load(dz + at));
    sum = hn::Add(sum, dn);
    sum_n = hn::MulAdd(dn, access.load(n + at), sum_n);
  });
  return {total(sum), total(sum_n)};
}

void normalize_backward_row(float scale, float mean_dn, float mean_dn_n, const float* gain, const float* dz,
                            float* n, std::size_t size) {
  const Vector r = hn::Set(Tag(), scale), q1 = hn::Set(Tag(), mean_dn), q2 = hn::Set(Tag(), mean_dn_n);
  for_vectors(size, [&](std::size_t at, auto access) {
    const Vector dn = hn::Mul(access.load(gain + at), access.load(dz + at));
    access.store(hn::Mul(r, hn::NegMulAdd(access.load(n + at), q2, hn::Sub(dn, q1))), n + at);
  });
}

}  // namespace lamina::lstm_rows::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::lstm_rows {
namespace {

HWY_EXPORT(row_moments);
HWY_EXPORT(normalize_row);
HWY_EXPORT(gates_forward_row);
HWY_EXPORT(output_forward_row);
HWY_EXPORT(output_backward_row);
HWY_EXPORT(gates_backward_row);
HWY_EXPORT(normalized_sums_row);
HWY_EXPORT(normalize_backward_row);

}  // namespace

Moments moments(const float* x, std::size_t size) { return HWY_DYNAMIC_DISPATCH(row_moments)(x, size); }

void normalize(Normalizer norm, const float* gain, const float* bias, float* a, float* out,
               std::size_t size) {
  HWY_DYNAMIC_DISPATCH(normalize_row)(norm, gain, bias, a, out, size);
}

void gates_forward(const GatesForward& row, std::size_t units) {
  HWY_DYNAMIC_DISPATCH(gates_forward_row)(row, units);
}

void output_forward(const OutputForward& row, std::size_t units) {
  HWY_DYNAMIC_DISPATCH(output_forward_row)(row, units);
}

Sums output_backward(const OutputBackward& row, std::size_t units) {
  return HWY_DYNAMIC_DISPATCH(output_backward_row)(row, units);
}

Sums gates_backward(const GatesBackward& row, std::size_t units) {
  return HWY_DYNAMIC_DISPATCH(gates_backward_row)(row, units);
}

Sums normalized_sums(const float* gain, const float* dz, const float* n, std::size_t size) {
  return HWY_DYNAMIC_DISPATCH(normalized_sums_row)(gain, dz, n, size);
}

void normalize_backward(float scale, float mean_dn, float mean_dn_n, const float* gain, const float* dz,
                        float* n, std::size_t size) {
  HWY_DYNAMIC_DISPATCH(normalize_backward_row)(scale, mean_dn, mean_dn_n, gain, dz, n, size);
}

}  // namespace lamina::lstm_rows
#endif
