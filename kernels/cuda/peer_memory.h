// Memory on every GPU of a group into which kernels of all of them can store.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

namespace lamina::cuda {

/// Ranks whose kernels exchange by themselves.
inline constexpr int kMostPeers = 16;

/// For kernels: where the memory of each rank begins, as this rank's GPU reaches it. Alone as it is made.
struct PeerWindows {
  int count = 1, own = 0;
  unsigned char* base[kMostPeers] = {};

  /// The place in the memory of `rank` that `mine` is in this rank's.
  template <class T>
  __host__ __device__ T* of(int rank, T* mine) const {
    if (rank == own) return mine;
    return reinterpret_cast<T*>(base[rank] + (reinterpret_cast<unsigned char*>(mine) - base[own]));
  }
};

/// Of equal size on all ranks. Its end is collective, as its beginning: peers store into it until then.
class PeerMemory {
 public:
  PeerMemory() = default;
  virtual ~PeerMemory() = default;
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  const PeerWindows& windows() const { return windows_; }

 protected:
  PeerWindows windows_;
};

/// `memory`, or null and why not: a clause.
struct PeerMemoryOffer {
  std::unique_ptr<PeerMemory> memory;
  std::string why_not;
};

}  // namespace lamina::cuda
