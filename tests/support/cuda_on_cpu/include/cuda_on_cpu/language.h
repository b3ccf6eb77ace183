// What CUDA adds to C++: qualifiers, vector types, built-in variables.
//
// All threads of a block are fibers of one OS thread, and the blocks of an ordinary launch run one after
// another: so a __shared__ variable is a static of the OS thread. A cooperative launch runs all its blocks at
// once, and they would share such statics: its kernels must use dynamic shared memory only, nothing detects
// the mistake. `extern __shared__` cannot work: ask emulated_dynamic_shared_memory() for it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#define LAMINA_CUDA_ON_CPU 1

// NOLINTBEGIN(bugprone-reserved-identifier)
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
// NOLINTEND(bugprone-reserved-identifier)

// NOLINTBEGIN(readability-identifier-naming): NVIDIA's names
struct float2 {
  alignas(8) float x;
  float y;
};
struct float3 {
  float x, y, z;
};
struct float4 {
  alignas(16) float x;
  float y, z, w;
};
struct double2 {
  alignas(16) double x;
  double y;
};
struct int2 {
  alignas(8) int x;
  int y;
};
struct int3 {
  int x, y, z;
};
struct int4 {
  alignas(16) int x;
  int y, z, w;
};
struct uint2 {
  alignas(8) unsigned x;
  unsigned y;
};
struct uint3 {
  unsigned x, y, z;
};
struct uint4 {
  alignas(16) unsigned x;
  unsigned y, z, w;
};
struct ushort2 {
  alignas(4) unsigned short x;
  unsigned short y;
};
struct ushort4 {
  alignas(8) unsigned short x;
  unsigned short y, z, w;
};
struct ulonglong2 {
  alignas(16) unsigned long long x;
  unsigned long long y;
};

constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float3 make_float3(float x, float y, float z) { return {x, y, z}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }
constexpr int2 make_int2(int x, int y) { return {x, y}; }
constexpr int3 make_int3(int x, int y, int z) { return {x, y, z}; }
constexpr int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
constexpr uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
constexpr ushort2 make_ushort2(unsigned short x, unsigned short y) { return {x, y}; }
constexpr ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z, unsigned short w) {
  return {x, y, z, w};
}
constexpr ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

struct dim3 {
  unsigned x = 1, y = 1, z = 1;

  constexpr dim3(unsigned of_x = 1, unsigned of_y = 1, unsigned of_z = 1) : x(of_x), y(of_y), z(of_z) {}
  constexpr dim3(uint3 of) : x(of.x), y(of.y), z(of.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

// Of the CUDA thread that runs on this OS thread; set whenever another one's turn comes.
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;
extern const int warpSize;  // no constant expression on a GPU either
// NOLINTEND(readability-identifier-naming)
