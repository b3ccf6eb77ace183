// Streams and events. Work is a function; it is done when it is issued, or - lazy - when someone waits for
// it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_on_cpu/runtime_api.h"
#include "tests/support/cuda_on_cpu/exchange_order.h"
#include "tests/support/cuda_on_cpu/host.h"

namespace cuda_on_cpu {

using Work = std::function<cudaError_t()>;
struct Capture;

/// One cudaEventRecord.
struct Record {
  std::shared_ptr<CUstream_st> stream;
  bool done = false;
  Past past = {};
  std::chrono::steady_clock::time_point when = {};
};

/// What a stream has still to do: one of these.
struct Step {
  Work work;
  std::shared_ptr<Record> records, awaits;
};

}  // namespace cuda_on_cpu

// All of these are guarded by streams_mutex().
struct CUstream_st {
  bool is_legacy = false;   ///< the stream that is named by 0
  bool is_blocking = true;  ///< for the legacy stream, and it for this
  int device = 0;
  const void* owner = nullptr;  ///< the host thread that made it
  std::deque<cuda_on_cpu::Step> queue;
  bool running = false;  ///< some thread does the first of the queue
  std::shared_ptr<cuda_on_cpu::Capture> capture;
  std::vector<std::size_t> frontier;  ///< nodes of the capture that come right before what is next
  cuda_on_cpu::Past past;             ///< of what is put on it next
  std::map<const void*, std::uint64_t> latest_exchanges;  ///< by group, which one of the stream's
};

struct CUevent_st {
  bool has_time = true;
  std::shared_ptr<cuda_on_cpu::Record> record;
  std::shared_ptr<cuda_on_cpu::Capture> capture;
  std::vector<std::size_t> frontier;
};

namespace cuda_on_cpu {

std::mutex& streams_mutex();
std::shared_ptr<CUstream_st> find_stream(cudaStream_t handle);

/// Work of the device, in the order of the stream; recorded where the stream captures.
cudaError_t issue(cudaStream_t handle, Work work);
/// Does it now, on this thread.
cudaError_t perform(const Work& work);
/// Does all that is on the stream, as time would: the host has not waited for it.
cudaError_t run_all(cudaStream_t handle);
/// Those that this host thread has made.
void for_own_streams(const std::function<void(CUstream_st& stream)>& visit);
/// Waits for all that the stream has to do.
void drain(std::unique_lock<std::mutex>& lock, CUstream_st& stream);
/// The streams of this host thread that the legacy stream waits for, or all of them.
void drain_own(std::unique_lock<std::mutex>& lock, bool all);

}  // namespace cuda_on_cpu
