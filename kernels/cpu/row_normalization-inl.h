// LN of one row, forward and backward. For sources that Highway compiles once per instruction set.
#if defined(LAMINA_KERNELS_CPU_ROW_NORMALIZATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_ROW_NORMALIZATION_INL_H_
#undef LAMINA_KERNELS_CPU_ROW_NORMALIZATION_INL_H_
#else
#define LAMINA_KERNELS_CPU_ROW_NORMALIZATION_INL_H_
#endif

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/lstm_cell.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

struct RowNormalization {
  Vector mean, scale;

  HWY_INLINE RowNormalization(const NormalizedRows& rows, std::size_t row)
      : mean(constant(rows.mean[row])), scale(constant(rows.scale[row])) {}
  HWY_INLINE Vector of(Vector a) const { return hn::Mul(hn::Sub(a, mean), scale); }
  /// gain n + rest
  template <class Lanes>
  HWY_INLINE Vector term(const Lanes& lanes, const float* a, const float* gain, Vector rest) const {
    return hn::MulAdd(lanes.load(gain), of(lanes.load(a)), rest);
  }
};

template <class Lanes>
HWY_INLINE void add_to(const Lanes& lanes, float* sum, Vector v) {
  lanes.store(hn::Add(lanes.load(sum), v), sum);
}

/// dn and dn n of one LN, summed over a row.
struct SideSums {
  RowNormalization of;
  Vector dn, dn_n;

  HWY_INLINE SideSums(const NormalizedRows& rows, std::size_t row)
      : of(rows, row), dn(constant(0)), dn_n(constant(0)) {}
  // `dz` is 0 in lanes behind the row's end.
  HWY_INLINE void add(Vector dz, Vector gain, Vector a) {
    const Vector d_n = hn::Mul(gain, dz);
    dn = hn::Add(dn, d_n);
    dn_n = hn::MulAdd(d_n, of.of(a), dn_n);
  }
  HWY_INLINE void store(const NormalizationSums& sums, std::size_t row) const {
    sums.dn[row] = sum_of_lanes(dn);
    sums.dn_n[row] = sum_of_lanes(dn_n);
  }
};

/// From dz to da, which may take the place of a.
struct RowBackward {
  RowNormalization of;
  Vector mean_dn, mean_dn_n;

  HWY_INLINE RowBackward(const NormalizedRows& rows, const float* means_dn, const float* means_dn_n,
                         std::size_t row)
      : of(rows, row), mean_dn(constant(means_dn[row])), mean_dn_n(constant(means_dn_n[row])) {}
  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes, Vector dz, const float* a, const float* gain, float* d_gain,
                      float* da) const {
    const Vector n = of.of(lanes.load(a)), d_n = hn::Mul(lanes.load(gain), dz);
    lanes.store(hn::MulAdd(dz, n, lanes.load(d_gain)), d_gain);
    lanes.store(hn::Mul(of.scale, hn::NegMulAdd(n, mean_dn_n, hn::Sub(d_n, mean_dn))), da);
  }
};

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
