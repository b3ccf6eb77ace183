#include "tests/support/cuda_on_cpu/streams.h"

#include <algorithm>

#include "tests/support/cuda_on_cpu/graphs.h"
#include "tests/support/cuda_on_cpu/memory.h"

namespace cuda_on_cpu {
namespace {

using Lock = std::unique_lock<std::mutex>;
using Clock = std::chrono::steady_clock;

/// Told whenever a step is done.
std::condition_variable& steps_done() {
  static auto& of_the_process = *new std::condition_variable;
  return of_the_process;
}
Handles<CUstream_st>& streams() {
  static auto& of_the_process = *new Handles<CUstream_st>;
  return of_the_process;
}
Handles<CUevent_st>& events() {
  static auto& of_the_process = *new Handles<CUevent_st>;
  return of_the_process;
}

const std::shared_ptr<CUstream_st>& legacy_stream() {
  thread_local const std::shared_ptr<CUstream_st> of_this_thread = [] {
    auto stream = std::make_shared<CUstream_st>();
    stream->is_legacy = true;
    stream->owner = &host_thread();
    return stream;
  }();
  return of_this_thread;
}

/// Some progress of the stream: its first step is done, or something that it waits for.
void advance(Lock& lock, CUstream_st& stream) {
  if (stream.running) {
    steps_done().wait(lock);
    return;
  }
  if (stream.queue.empty()) return;
  if (const auto awaited = stream.queue.front().awaits; awaited && !awaited->done) {
    advance(lock, *awaited->stream);
    return;
  }
  const Step step = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (step.work) {
    stream.running = true;
    lock.unlock();
    perform(step.work);
    lock.lock();
    stream.running = false;
  }
  if (step.records) {
    step.records->done = true;
    step.records->when = Clock::now();
  }
  steps_done().notify_all();
}

void complete(Lock& lock, Record& record) {
  while (!record.done) advance(lock, *record.stream);
}

/// What this host thread puts on streams from now on comes later than that.
void note_wait(const Past& past) { host_thread().past.add(past); }

bool is_idle(const CUstream_st& stream) { return stream.queue.empty() && !stream.running; }

cudaError_t create_stream(cudaStream_t* handle, unsigned flags) {
  if (const auto error = obstacle()) return finish(error);
  if (flags > cudaStreamNonBlocking) return finish(cudaErrorInvalidValue);
  auto stream = std::make_shared<CUstream_st>();
  stream->is_blocking = flags != cudaStreamNonBlocking;
  stream->device = host_thread().device;
  stream->owner = &host_thread();
  *handle = streams().add(std::move(stream));
  return cudaSuccess;
}

/// The node that records an event at every launch of a graph.
Work recording(std::shared_ptr<CUevent_st> event) {
  return [event = std::move(event)] {
    const std::lock_guard lock(streams_mutex());
    event->capture = nullptr;
    event->record = std::make_shared<Record>(Record{.stream = nullptr, .done = true, .when = Clock::now()});
    return cudaSuccess;
  };
}

/// What comes next in the stream comes after the captured event too.
cudaError_t wait_in_capture(const std::shared_ptr<CUstream_st>& stream, const CUevent_st& event) {
  if (stream->capture && stream->capture != event.capture) return cudaErrorStreamCaptureMerge;
  if (!event.capture->is_valid) return cudaErrorStreamCaptureInvalidated;
  if (!stream->capture) {
    stream->capture = event.capture;
    stream->frontier.clear();
    event.capture->streams.push_back(stream);
  }
  for (const std::size_t node : event.frontier)
    if (std::find(stream->frontier.begin(), stream->frontier.end(), node) == stream->frontier.end())
      stream->frontier.push_back(node);
  return cudaSuccess;
}

}  // namespace

std::mutex& streams_mutex() {
  static auto& of_the_process = *new std::mutex;
  return of_the_process;
}

std::shared_ptr<CUstream_st> find_stream(cudaStream_t handle) {
  return handle == nullptr ? legacy_stream() : streams().find(handle);
}

cudaError_t perform(const Work& work) {
  if (const auto error = obstacle()) return error;  // after a failure, nothing is done
  const DeviceAccess access;
  return work();
}

void drain(Lock& lock, CUstream_st& stream) {
  while (!is_idle(stream)) advance(lock, stream);
}

void for_own_streams(const std::function<void(CUstream_st& stream)>& visit) {
  streams().for_each([&](const std::shared_ptr<CUstream_st>& stream) {
    if (stream->owner == &host_thread()) visit(*stream);
  });
}

void drain_own(Lock& lock, bool all) {
  for_own_streams([&](CUstream_st& stream) {
    if (all || stream.is_blocking) drain(lock, stream);
  });
}

cudaError_t run_all(cudaStream_t handle) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (stream->capture) return finish(refuse_in_capture(*stream));
  if (stream->is_legacy) {
    if (const auto error = refuse_implicit()) return finish(error);
    drain_own(lock, false);
  }
  drain(lock, *stream);
  close_own_memory();
  return finish(cudaSuccess);
}

cudaError_t issue(cudaStream_t handle, Work work) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  {
    Lock lock(streams_mutex());
    if (stream->capture) return finish(record_node(*stream, std::move(work)));
    if (stream->is_legacy) {
      if (const auto error = refuse_implicit()) return finish(error);
      drain_own(lock, false);
    } else if (settings().lazy) {
      stream->queue.push_back({.work = std::move(work), .records = nullptr, .awaits = nullptr});
      return cudaSuccess;
    } else {
      drain(lock, *stream);
    }
  }
  perform(work);  // a failure shows with the next call, as on a GPU
  return cudaSuccess;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace)

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create_stream(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return create_stream(stream, flags);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return create_stream(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const auto stream = handle == nullptr ? nullptr : streams().find(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (stream->capture) refuse_in_capture(*stream);
  drain(lock, *stream);
  streams().remove(handle);
  return finish(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const cudaError_t error = run_all(handle);
  if (error == cudaSuccess) note_wait(find_stream(handle)->past);
  return error;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (stream->capture) return finish(refuse_in_capture(*stream));
  if (is_idle(*stream)) {
    note_wait(stream->past);
    return finish(cudaSuccess);
  }
  advance(lock, *stream);  // who asks again and again shall see the end
  return finish(cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  const auto event = events().find(event_handle);
  if (!stream || !event) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (event->capture) return finish(wait_in_capture(stream, *event));
  if (!event->record) return cudaSuccess;
  if (!stream->capture) stream->past.add(event->record->past);
  if (stream->capture) {
    stream->capture->is_valid = false;
    return finish(cudaErrorStreamCaptureIsolation);
  }
  if (event->record->done) return cudaSuccess;
  if (settings().lazy && !stream->is_legacy) {
    stream->queue.push_back({.work = nullptr, .records = nullptr, .awaits = event->record});
  } else {
    complete(lock, *event->record);
  }
  return finish(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize() {
  if (const auto error = obstacle()) return finish(error);
  Lock lock(streams_mutex());
  if (const auto error = refuse_in_captures_of_others()) return finish(error);
  drain_own(lock, true);
  for_own_streams([](const CUstream_st& stream) { note_wait(stream.past); });
  close_own_memory();
  return finish(cudaSuccess);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return issue(stream, [function, data] {
    const HostAccess access;
    function(data);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned flags) {
  if (const auto error = obstacle()) return finish(error);
  auto event = std::make_shared<CUevent_st>();
  event->has_time = (flags & cudaEventDisableTiming) == 0;
  *handle = events().add(std::move(event));
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return finish(events().remove(event) ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event_handle, cudaStream_t handle, unsigned flags) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  const auto event = events().find(event_handle);
  if (!stream || !event) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (stream->capture && flags == cudaEventRecordExternal)
    return finish(record_node(*stream, recording(event)));
  if (stream->capture) {
    event->capture = stream->capture;
    event->frontier = stream->frontier;
    return finish(stream->capture->is_valid ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
  }
  event->capture = nullptr;
  stream->past.add(host_thread().past);
  event->record = std::make_shared<Record>(Record{.stream = stream, .past = stream->past});
  if (stream->is_legacy) drain_own(lock, false);
  if (settings().lazy && !stream->is_legacy) {
    stream->queue.push_back({.work = nullptr, .records = event->record, .awaits = nullptr});
  } else {
    drain(lock, *stream);
    event->record->done = true;
    event->record->when = Clock::now();
  }
  return finish(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  if (const auto error = obstacle()) return finish(error);
  const auto event = events().find(handle);
  if (!event) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (event->capture) {
    event->capture->is_valid = false;
    return finish(cudaErrorCapturedEvent);
  }
  if (const auto record = event->record) {
    complete(lock, *record);
    note_wait(record->past);
  }
  close_own_memory();
  return finish(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  if (const auto error = obstacle()) return finish(error);
  const auto event = events().find(handle);
  if (!event) return finish(cudaErrorInvalidResourceHandle);
  Lock lock(streams_mutex());
  if (event->capture) {
    event->capture->is_valid = false;
    return finish(cudaErrorCapturedEvent);
  }
  const auto record = event->record;
  if (record && record->done) note_wait(record->past);
  if (!record || record->done) return finish(cudaSuccess);
  advance(lock, *record->stream);
  return finish(cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start_handle, cudaEvent_t end_handle) {
  if (const auto error = obstacle()) return finish(error);
  const auto start = events().find(start_handle), end = events().find(end_handle);
  const Lock lock(streams_mutex());
  if (!start || !end || !start->has_time || !end->has_time || !start->record || !end->record)
    return finish(cudaErrorInvalidResourceHandle);
  if (!start->record->done || !end->record->done) return finish(cudaErrorNotReady);
  *milliseconds = std::chrono::duration<float, std::milli>(end->record->when - start->record->when).count();
  return cudaSuccess;
}
