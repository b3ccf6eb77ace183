#include "tests/support/cuda_on_cpu/exchange_order.h"

#include <algorithm>

#include "tests/support/cuda_on_cpu/graphs.h"
#include "tests/support/cuda_on_cpu/streams.h"

namespace cuda_on_cpu {
namespace {

bool comes_after(const CUstream_st& stream, const CUstream_st& other, const void* group) {
  return std::all_of(other.latest_exchanges.begin(), other.latest_exchanges.end(), [&](const auto& latest) {
    return latest.first == group || latest.second <= stream.past.of(&other);
  });
}

}  // namespace

void Past::add(const Past& other) {
  for (const auto& [stream, count] : other.exchanges_) {
    std::uint64_t& own = exchanges_[stream];
    own = std::max(own, count);
  }
}

std::uint64_t Past::of(const CUstream_st* stream) const {
  const auto found = exchanges_.find(stream);
  return found == exchanges_.end() ? 0 : found->second;
}

cudaError_t note_exchange(cudaStream_t handle, const void* group) {
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(streams_mutex());
  if (stream->capture) {
    stream->capture->graph.exchanges.insert(group);
    return cudaSuccess;
  }
  stream->past.add(host_thread().past);
  bool is_ordered = true;
  for_own_streams([&](const CUstream_st& other) {
    if (&other != stream.get()) is_ordered = is_ordered && comes_after(*stream, other, group);
  });
  stream->latest_exchanges[group] = stream->past.count(stream.get());
  if (is_ordered) return cudaSuccess;
  fail_for_good(cudaErrorLaunchFailure,
                "exchanges of two groups are on two streams, and nothing says which comes first: GPUs may "
                "begin different ones and wait for each other");
  return cudaErrorLaunchFailure;
}

}  // namespace cuda_on_cpu
