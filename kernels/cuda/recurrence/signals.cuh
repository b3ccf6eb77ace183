// What thread blocks that run together tell each other through global memory, and how they wait for it.
//
// A *flag* is a number that only grows: who has seen its value also sees all that its block wrote before. A
// *word* carries its epoch beside its value, in one 8-byte access, so that nothing else need be ordered.
// Words have two places, for even and odd epochs: a block writes epoch e only when it has read e - 1 of all
// blocks, and those have then read e - 2.
//
// Blocks may be on several GPUs: each has what it waits for in its own memory, and who says something stores
// it into the memory of all. What is said then has the scope of the system instead of the GPU's.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/peer_memory.h"
#include "kernels/cuda/recurrence/signals.h"

namespace lamina::cuda {

#ifdef LAMINA_CUDA_ON_CPU  // tests run kernels on CPUs, one thread at a time: whoever waits lets others run

/// The block that others are so many turns ahead of whenever it looks at something; none at first.
inline thread_local int slow_block = -1, slow_turns = 512;  // more than a step takes
inline void dawdle() {
  if (static_cast<int>(blockIdx.x) == slow_block)
    for (int turn = 0; turn < slow_turns; ++turn) cuda_on_cpu::yield();
}

// Ranks are threads, each with kernels of its own: what one stores and another looks at is atomic.
inline unsigned load_flag(const unsigned* flag, bool) {
  dawdle();
  return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}
inline void store_flag(const PeerWindows& peers, unsigned* flag, unsigned value) {
  cuda_on_cpu::yield();
  for (int rank = 0; rank < peers.count; ++rank)
    __atomic_store_n(peers.of(rank, flag), value, __ATOMIC_RELEASE);
}
inline Word load_word(const Word* from, bool) {
  dawdle();
  Word word;
  __atomic_load(from, &word, __ATOMIC_RELAXED);
  return word;
}
inline WordPair load_words(const WordPair* from, bool) {
  dawdle();
  WordPair words;
  __atomic_load(&from->first, &words.first, __ATOMIC_RELAXED);
  __atomic_load(&from->second, &words.second, __ATOMIC_RELAXED);
  return words;
}
inline void store_word(const PeerWindows& peers, Word* to, Word word) {
  cuda_on_cpu::yield();
  for (int rank = 0; rank < peers.count; ++rank) __atomic_store(peers.of(rank, to), &word, __ATOMIC_RELAXED);
}
inline unsigned long long nanoseconds() { return static_cast<unsigned long long>(clock64()); }
inline void pause() { cuda_on_cpu::yield(); }

#else

/// Acquires what the block that stored it had written.
__device__ __forceinline__ unsigned load_flag(const unsigned* flag, bool of_peers) {
  unsigned value;
  if (of_peers)
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  else
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
/// By one thread, after __syncthreads(): releases what the block has written, to all ranks.
__device__ __forceinline__ void store_flag(const PeerWindows& peers, unsigned* flag, unsigned value) {
  if (peers.count == 1) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
    return;
  }
  __threadfence_system();  // once, for the stores to all of them
  for (int rank = 0; rank < peers.count; ++rank)
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(peers.of(rank, flag)), "r"(value) : "memory");
}

__device__ __forceinline__ Word word_of(unsigned long long bits) {
  return {__uint_as_float(static_cast<unsigned>(bits)), static_cast<unsigned>(bits >> 32)};
}
__device__ __forceinline__ Word load_word(const Word* word, bool of_peers) {
  unsigned long long bits;
  if (of_peers)
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(bits) : "l"(word) : "memory");
  else
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(bits) : "l"(word) : "memory");
  return word_of(bits);
}
/// Two words, each of them whole, but perhaps not of one epoch.
__device__ __forceinline__ WordPair load_words(const WordPair* words, bool of_peers) {
  unsigned long long first, second;
  if (of_peers)
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0,%1}, [%2];"
                 : "=l"(first), "=l"(second)
                 : "l"(words)
                 : "memory");
  else
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0,%1}, [%2];"
                 : "=l"(first), "=l"(second)
                 : "l"(words)
                 : "memory");
  return {word_of(first), word_of(second)};
}
/// To all ranks.
__device__ __forceinline__ void store_word(const PeerWindows& peers, Word* to, Word word) {
  const unsigned long long bits =
      static_cast<unsigned long long>(word.epoch) << 32 | __float_as_uint(word.value);
  if (peers.count == 1) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(bits) : "memory");
    return;
  }
  for (int rank = 0; rank < peers.count; ++rank)
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(peers.of(rank, to)), "l"(bits) : "memory");
}
__device__ __forceinline__ unsigned long long nanoseconds() {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}
__device__ __forceinline__ void pause() {}

#endif

/// A thread's patience. Where a wait takes longer than the limit, this and all later waits of the launch end
/// at once, with whatever is there; the host finds out from the Stall.
class Watch {
 public:
  __device__ Watch(Stall* stall, unsigned long long limit) : stall_(stall), limit_(limit) {}

  __device__ bool has_given_up() const { return has_given_up_; }

  /// Looks until is_there() says yes.
  template <class IsThere>
  __device__ void wait(int step, Signal signal, const IsThere& is_there) {
    unsigned long long since = 0;
    for (unsigned looks = 1; !has_given_up_ && !is_there(); ++looks) {
      pause();
      if (looks % kLooksBetweenClocks == 0) look_at_clock(since, step, signal);
    }
  }

 private:
  static constexpr unsigned kLooksBetweenClocks = 256;

  __device__ void look_at_clock(unsigned long long& since, int step, Signal signal) {
    if (atomicAdd(&stall_->is_claimed, 0) != 0) {
      has_given_up_ = true;
      return;
    }
    const unsigned long long now = nanoseconds();
    if (since == 0) since = now;
    if (now - since < limit_) return;
    has_given_up_ = true;
    if (atomicExch(&stall_->is_claimed, 1) != 0) return;
    stall_->block = static_cast<int>(blockIdx.x);
    stall_->step = step;
    stall_->signal = signal;
  }

  Stall* stall_;
  unsigned long long limit_;
  bool has_given_up_ = false;
};

}  // namespace lamina::cuda
