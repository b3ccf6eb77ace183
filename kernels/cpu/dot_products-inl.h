// How a tile of a product multiplies and adds, one form for each kind of operands. For sources that Highway
// compiles once per instruction set.
#if defined(LAMINA_KERNELS_CPU_DOT_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LAMINA_KERNELS_CPU_DOT_PRODUCTS_INL_H_
#undef LAMINA_KERNELS_CPU_DOT_PRODUCTS_INL_H_
#else
#define LAMINA_KERNELS_CPU_DOT_PRODUCTS_INL_H_
#endif

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/panel_products.h"
#include "runtime/error.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

// At each step along k a form takes `kElements` floats of a row of A and a vector of B, in `kParts`, one
// after another.

struct F32 {
  static constexpr std::size_t kElements = 1, kParts = 1;
  template <std::size_t kPart>
  static HWY_INLINE Vector left(const float* a) {
    return constant(*a);
  }
  template <std::size_t kPart>
  static HWY_INLINE Vector right(Vector b) {
    return b;
  }
  static HWY_INLINE Vector add(Vector left, Vector right, Vector sum) { return hn::MulAdd(left, right, sum); }
};

struct Bf16Widened {
  static constexpr std::size_t kElements = 2, kParts = 2;
  template <std::size_t kPart>
  static HWY_INLINE Vector left(const float* a) {
    return constant(a[1 - kPart]);
  }
  template <std::size_t kPart>
  static HWY_INLINE Vector right(Vector b) {
    return kPart == 0 ? odd_of_pair(Floats(), b) : even_of_pair(Floats(), b);
  }
  static HWY_INLINE Vector add(Vector left, Vector right, Vector sum) { return hn::MulAdd(left, right, sum); }
};

struct Bf16Pairs {
  static constexpr std::size_t kElements = 1, kParts = 1;
  template <std::size_t kPart>
  static HWY_INLINE Vector left(const float* a) {
    return hn::BitCast(Floats(), hn::Set(Words<Floats>(), std::bit_cast<std::uint32_t>(*a)));
  }
  template <std::size_t kPart>
  static HWY_INLINE Vector right(Vector b) {
    return b;
  }
};

// Written as such because Highway 1.0 does not have it; a template so that other CPUs' compilers never see
// it.
struct Bf16Instruction : Bf16Pairs {
  static constexpr bool kExists = HWY_ARCH_X86 && HWY_MAX_BYTES == 64;
  template <class Register>
  static HWY_INLINE Register add(Register left, Register right, Register sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(right.raw), "v"(left.raw));
    return sum;
  }
};

struct Bf16Imitation : Bf16Pairs {
  static HWY_INLINE Vector add(Vector left, Vector right, Vector sum) {
    sum = hn::MulAdd(odd_of_pair(Floats(), left), odd_of_pair(Floats(), right), sum);
    return hn::MulAdd(even_of_pair(Floats(), left), even_of_pair(Floats(), right), sum);
  }
};

/// body(one of the above)
template <class Body>
HWY_INLINE void with(Operands operands, const Body& body) {
  switch (operands) {
    case Operands::f32:
      return body(F32());
    case Operands::bf16_widened:
      return body(Bf16Widened());
    case Operands::bf16_pairs:
      if constexpr (Bf16Instruction::kExists) return body(Bf16Instruction());
      check(false, "panel products: there is no instruction for bf16 here");
      return;
    case Operands::bf16_pairs_imitated:
      return body(Bf16Imitation());
  }
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
