// Matrix products of one warp on the tensor cores: bf16 times bf16, summed in float.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/loops.cuh"

namespace lamina::cuda {

/// Fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). Of lane l, with g = l / 4 and
/// q = l % 4, each register has two neighbours along k, the lower k in the lower half:
///   A [16, 16]: rows g and g + 8 at k = 2q, then the same rows at k = 2q + 8
///   B [16, 8]:  column g at k = 2q, and at k = 2q + 8
///   C [16, 8]:  row g at columns 2q and 2q + 1, then row g + 8 there
struct FragmentA {
  unsigned at[4];
};
struct FragmentB {
  unsigned at[2];
};

#ifdef LAMINA_CUDA_ON_CPU  // tests run kernels on CPUs: lanes ask each other for what they need

__device__ inline void add_product(float (&c)[4], const FragmentA& a, const FragmentB& b) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
  const auto low = [](unsigned pair) { return __uint_as_float(pair << 16); };
  const auto high = [](unsigned pair) { return __uint_as_float(pair & 0xffff0000u); };
  const auto both = [](unsigned first, unsigned second) {
    return static_cast<unsigned long long>(second) << 32 | first;
  };
  float sums[4] = {};
  for (int k = 0; k < 4; ++k) {
    const unsigned long long upper = __shfl_sync(kAllLanes, both(a.at[0], a.at[2]), 4 * g + k);
    const unsigned long long lower = __shfl_sync(kAllLanes, both(a.at[1], a.at[3]), 4 * g + k);
    for (int column = 0; column < 2; ++column) {
      const unsigned long long other =
          __shfl_sync(kAllLanes, both(b.at[0], b.at[1]), 4 * (2 * q + column) + k);
      for (int half = 0; half < 2; ++half) {
        const auto part = [&](unsigned long long pair) { return static_cast<unsigned>(pair >> 32 * half); };
        sums[column] += low(part(upper)) * low(part(other)) + high(part(upper)) * high(part(other));
        sums[2 + column] += low(part(lower)) * low(part(other)) + high(part(lower)) * high(part(other));
      }
    }
  }
  for (int i = 0; i < 4; ++i) c[i] += sums[i];
}

#else

/// C += A B
__device__ __forceinline__ void add_product(float (&c)[4], const FragmentA& a, const FragmentB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
}

#endif

}  // namespace lamina::cuda
