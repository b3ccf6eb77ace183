// (a - mean) * scale of one row. For sources that Highway compiles once per instruction set.
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
};

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
