// Which elements, or rows, a thread works on. Kernels loop, so that a grid of any size covers them all.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/launch.h"

namespace lamina::cuda {

/// for (std::size_t i = first_element(); i < count; i += element_stride()), launched for_elements(count).
__device__ __forceinline__ std::size_t first_element() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::size_t element_stride() {
  return static_cast<std::size_t>(gridDim.x) * blockDim.x;
}

inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// A warp per row, eight rows in a block of threads: threadIdx.x is the lane.
inline LaunchShape for_rows(std::size_t rows, unsigned most = 65535) {
  const std::size_t blocks = (rows + 7) / 8;
  return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)), dim3(kWarp, 8)};
}

/// for (std::size_t row = first_row(); row < rows; row += row_stride()), launched for_rows(rows): the lanes
/// of a warp stay together.
__device__ __forceinline__ std::size_t first_row() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}
__device__ __forceinline__ std::size_t row_stride() {
  return static_cast<std::size_t>(gridDim.x) * blockDim.y;
}

/// Sum over the lanes of a warp, in every lane the same bits.
template <class T>
__device__ __forceinline__ T sum_of_lanes(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// Largest of the lanes of a warp; passes NaN over.
__device__ __forceinline__ float max_of_lanes(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

}  // namespace lamina::cuda
