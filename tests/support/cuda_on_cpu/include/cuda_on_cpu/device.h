// Functions that device code may call: barriers, exchanges in a warp, atomics, loads and arithmetic.
#pragma once

#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "cuda_on_cpu/language.h"

namespace cuda_on_cpu {

/// Start of the block's dynamic shared memory. It ends at a page that no one may touch.
void* emulated_dynamic_shared_memory();

/// Lets the other threads of the launch run. For loops that wait for what another thread writes.
void yield();
/// The same every now and then, for reads that may stand in such a loop.
void yield_sometimes();

/// All that was written before is seen by who sees what is written after.
void fence();

/// Ends the kernel: the launch fails for good (cudaErrorLaunchFailure).
[[noreturn]] void trap(std::source_location where);

// --- what the inline functions below are made of ---

using Where = std::source_location;

/// Of the threads of the block that came to a barrier.
struct Votes {
  int yes, all;
};
Votes barrier(bool vote, Where where);

enum class Collective : unsigned char {
  syncwarp,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all
};
/// Waits for the lanes in `mask`; gives a shuffle the value of the lane `source`, a vote its outcome.
std::uint64_t exchange(Collective kind, unsigned mask, std::uint64_t value, int source, Where where);
extern constinit thread_local unsigned lane_of_this_thread;
inline unsigned lane() { return lane_of_this_thread; }
unsigned lanes_not_ended();
[[noreturn]] void refuse_width(int width, Where where);
inline void check_width(int width, Where where) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) refuse_width(width, where);
}

template <class T>
T exchange_value(Collective kind, unsigned mask, T value, int source, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(kind, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Change of a value in memory that other host threads may change too.
template <class T, class Change>
T atomic_change(T* address, Change change) {
  yield();
  std::atomic_ref<T> target(*address);
  T old = target.load(std::memory_order_relaxed);
  while (!target.compare_exchange_weak(old, change(old))) {
  }
  return old;
}

}  // namespace cuda_on_cpu

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier): NVIDIA's names
// --- barriers, exchanges in a warp
// --------------------------------------------------------------------------
inline void __syncthreads(cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::barrier(false, where);
}
inline int __syncthreads_count(int vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::barrier(vote != 0, where).yes;
}
inline int __syncthreads_or(int vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::barrier(vote != 0, where).yes != 0;
}
inline int __syncthreads_and(int vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  const cuda_on_cpu::Votes votes = cuda_on_cpu::barrier(vote != 0, where);
  return votes.yes == votes.all;
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::exchange(cuda_on_cpu::Collective::syncwarp, mask, 0, 0, where);
}
inline unsigned __ballot_sync(unsigned mask, int vote,
                              cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return static_cast<unsigned>(
      cuda_on_cpu::exchange(cuda_on_cpu::Collective::ballot, mask, vote != 0, 0, where));
}
inline int __any_sync(unsigned mask, int vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return static_cast<int>(cuda_on_cpu::exchange(cuda_on_cpu::Collective::any, mask, vote != 0, 0, where));
}
inline int __all_sync(unsigned mask, int vote, cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  return static_cast<int>(cuda_on_cpu::exchange(cuda_on_cpu::Collective::all, mask, vote != 0, 0, where));
}
/// All lanes that have not ended: threads of a warp need not run in step here, as on a GPU.
inline unsigned __activemask() { return cuda_on_cpu::lanes_not_ended(); }

// A lane reads its own value where the source lies outside its segment of `width` lanes.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::check_width(width, where);
  const int lane = static_cast<int>(cuda_on_cpu::lane());
  return cuda_on_cpu::exchange_value(cuda_on_cpu::Collective::shuffle, mask, value,
                                     (lane & ~(width - 1)) | (source & (width - 1)), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::check_width(width, where);
  const int lane = static_cast<int>(cuda_on_cpu::lane());
  const int source = lane - static_cast<int>(delta);
  return cuda_on_cpu::exchange_value(cuda_on_cpu::Collective::shuffle_up, mask, value,
                                     source < (lane & ~(width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::check_width(width, where);
  const int lane = static_cast<int>(cuda_on_cpu::lane());
  const int source = lane + static_cast<int>(delta);
  return cuda_on_cpu::exchange_value(cuda_on_cpu::Collective::shuffle_down, mask, value,
                                     source > (lane | (width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::check_width(width, where);
  const int lane = static_cast<int>(cuda_on_cpu::lane());
  const int source = lane ^ lane_mask;
  return cuda_on_cpu::exchange_value(cuda_on_cpu::Collective::shuffle_xor, mask, value,
                                     source > (lane | (width - 1)) ? lane : source, where);
}

[[noreturn]] inline void __trap(cuda_on_cpu::Where where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::trap(where);
}

// --- memory
// -------------------------------------------------------------------------------------------------
// `std::type_identity_t` as NVIDIA has one function per type: the other arguments are converted.
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T old) { return old == compare ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return cuda_on_cpu::atomic_change(address, [&](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return cuda_on_cpu::atomic_change(address, [&](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::atomic_change(address, [&](T old) { return static_cast<T>(old & value); });
}

inline void __threadfence() {
  cuda_on_cpu::fence();
  cuda_on_cpu::yield();
}
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { cuda_on_cpu::yield(); }

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldca(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  cuda_on_cpu::yield_sometimes();
  return *const_cast<const volatile T*>(address);
}
template <class T>
requires std::is_class_v<T> T __ldcg(const T* address) {
  cuda_on_cpu::yield_sometimes();
  return *address;
}
template <class T>
T __ldcv(const T* address) {
  return __ldcg(address);
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
void __stwt(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// --- arithmetic
// --------------------------------------------------------------------------------------------- A GPU's
// approximations are computed accurately. Never contracted: __fmul_rn and __fadd_rn round each.
inline float rsqrtf(float x) { return static_cast<float>(1 / std::sqrt(static_cast<double>(x))); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __tanhf(float x) { return std::tanh(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(x) * y) >> 32);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit, x >>= 1) reversed = (reversed << 1) | (x & 1);
  return reversed;
}

inline long long clock64() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

constexpr int min(int x, int y) { return y < x ? y : x; }
constexpr int max(int x, int y) { return x < y ? y : x; }
constexpr unsigned min(unsigned x, unsigned y) { return y < x ? y : x; }
constexpr unsigned max(unsigned x, unsigned y) { return x < y ? y : x; }
constexpr long min(long x, long y) { return y < x ? y : x; }
constexpr long max(long x, long y) { return x < y ? y : x; }
constexpr unsigned long min(unsigned long x, unsigned long y) { return y < x ? y : x; }
constexpr unsigned long max(unsigned long x, unsigned long y) { return x < y ? y : x; }
constexpr long long min(long long x, long long y) { return y < x ? y : x; }
constexpr long long max(long long x, long long y) { return x < y ? y : x; }
constexpr unsigned long long min(unsigned long long x, unsigned long long y) { return y < x ? y : x; }
constexpr unsigned long long max(unsigned long long x, unsigned long long y) { return x < y ? y : x; }
inline float min(float x, float y) { return std::fmin(x, y); }
inline float max(float x, float y) { return std::fmax(x, y); }
inline double min(double x, double y) { return std::fmin(x, y); }
inline double max(double x, double y) { return std::fmax(x, y); }
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)
