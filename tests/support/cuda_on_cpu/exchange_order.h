// Whether exchanges between GPUs come in an order that no rank can change. GPUs begin what is on several
// streams in any order, and an exchange holds its GPU until all have begun it: of two groups' exchanges,
// streams, events or the host must say which is first.
#pragma once

#include <cstdint>
#include <map>

#include "cuda_on_cpu/runtime_api.h"

namespace cuda_on_cpu {

/// Of each stream, how many of its exchanges come before something.
class Past {
 public:
  void add(const Past& other);
  std::uint64_t of(const CUstream_st* stream) const;
  /// One more of the stream; which one it is.
  std::uint64_t count(const CUstream_st* stream) { return ++exchanges_[stream]; }

 private:
  std::map<const CUstream_st*, std::uint64_t> exchanges_;
};

/// An exchange of `group` is put on the stream, or into the graph that it captures. Fails for good where it
/// may begin before one of another group that this host thread has put on another stream. Branches of one
/// graph are not looked at.
cudaError_t note_exchange(cudaStream_t stream, const void* group);

}  // namespace cuda_on_cpu
