// Work in streams is done in order, no earlier than it must be, and graphs repeat it.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/support/cuda_on_cpu/kernel_test.h"

namespace cuda_on_cpu::test {
namespace {

__global__ void add_number(int* value, int number) { *value += number; }
__global__ void multiply_by(int* value, int number) { *value *= number; }

class Streams : public TwoStreams {
 protected:
  static Shape in(cudaStream_t stream) {
    Shape shape;
    shape.stream = stream;
    return shape;
  }
};
using LazyStreams = Streams;

class Captures : public Streams {
 protected:
  void begin() { ASSERT_EQ(cudaSuccess, cudaStreamBeginCapture(one_, cudaStreamCaptureModeThreadLocal)); }
  /// Ends the capture and makes its graph ready.
  cudaGraphExec_t end() {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    EXPECT_EQ(cudaSuccess, cudaStreamEndCapture(one_, &graph));
    EXPECT_EQ(cudaSuccess, cudaGraphGetNodes(graph, nullptr, &nodes_));
    EXPECT_EQ(cudaSuccess, cudaGraphInstantiate(&executable, graph));
    EXPECT_EQ(cudaSuccess, cudaGraphDestroy(graph));
    return executable;
  }
  /// Launches it `times` and lets it go.
  void run(cudaGraphExec_t executable, int times = 1) {
    EXPECT_EQ(cudaSuccess, cudaGraphUpload(executable, one_));
    for (int i = 0; i < times; ++i) EXPECT_EQ(cudaSuccess, cudaGraphLaunch(executable, one_));
    EXPECT_EQ(cudaSuccess, cudaStreamSynchronize(one_));
    EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(executable));
  }
  /// Of 1: one stream adds 1, the other multiplies by 10, after that or beside it.
  int add_and_multiply(bool ordered) {
    const Buffer<int> value(std::vector<int>{1});
    begin();
    EXPECT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
    EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(other_, event_));
    EXPECT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 1));
    if (ordered) {
      EXPECT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
      EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(other_, event_));
    }
    EXPECT_EQ(cudaSuccess, start(in(other_), multiply_by, value.data(), 10));
    EXPECT_EQ(cudaSuccess, cudaEventRecord(event_, other_));
    EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(one_, event_));
    run(end());
    return value.values()[0];
  }
  void expect_spoiled() {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(one_, &graph));
    EXPECT_EQ(nullptr, graph);
  }

  std::size_t nodes_ = 0;
};

// --- lazy streams
// -------------------------------------------------------------------------------------------
TEST_F(LazyStreams, WorkWaitsUntilSomeoneWaitsForIt) {
  const Buffer<int> value(std::vector<int>{1});
  int* result = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMallocHost(&result, sizeof(int)));
  set_lazy_streams(true);

  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
  ASSERT_EQ(cudaSuccess, cudaMemcpyAsync(result, value.data(), sizeof(int), cudaMemcpyDeviceToHost, one_));
  EXPECT_EQ(-1, *result);
  EXPECT_EQ(std::vector<int>{1}, value.values());  // the legacy stream does not wait for this one
  ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(one_));
  EXPECT_EQ(5, *result);
  ASSERT_EQ(cudaSuccess, cudaFreeHost(result));
}

TEST_F(LazyStreams, AnotherStreamWaitsOnlyByAnEvent) {
  for (const bool waits : {false, true}) {
    set_lazy_streams(false);
    const Buffer<int> value(std::vector<int>{1});
    set_lazy_streams(true);
    ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
    ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
    if (waits) {
      ASSERT_EQ(cudaSuccess, cudaStreamWaitEvent(other_, event_));
    }
    ASSERT_EQ(cudaSuccess, start(in(other_), multiply_by, value.data(), 10));
    ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(other_));
    ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(one_));
    EXPECT_EQ(waits ? 50 : 14, value.values()[0]);
  }
}

TEST_F(LazyStreams, QuestionsAreAnsweredAndMakeProgress) {
  const Buffer<int> value(std::vector<int>{1});
  set_lazy_streams(true);
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  EXPECT_EQ(cudaErrorNotReady, cudaEventQuery(event_));
  EXPECT_EQ(cudaErrorNotReady, cudaStreamQuery(one_));
  EXPECT_EQ(cudaErrorNotReady, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, cudaEventQuery(event_));
  EXPECT_EQ(cudaSuccess, cudaStreamQuery(one_));
}

TEST_F(LazyStreams, EventsWaitForWhatCameBefore) {
  const Buffer<int> value(std::vector<int>{1});
  set_lazy_streams(true);
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
  ASSERT_EQ(cudaSuccess, cudaEventSynchronize(event_));
  EXPECT_EQ(5, value.values()[0]);
  ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
  EXPECT_EQ(9, value.values()[0]);
}

TEST_F(LazyStreams, PageableMemoryIsReadAtOnce) {
  const Buffer<int> value(1);
  int* locked = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMallocHost(&locked, sizeof(int)));
  set_lazy_streams(true);
  for (int* host : {locked, new int}) {
    *host = 1;
    ASSERT_EQ(cudaSuccess, cudaMemcpyAsync(value.data(), host, sizeof(int), cudaMemcpyHostToDevice, one_));
    *host = 2;
    ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(one_));
    EXPECT_EQ(host == locked ? 2 : 1, value.values()[0]);
    if (host != locked) delete host;
  }
  ASSERT_EQ(cudaSuccess, cudaFreeHost(locked));
}

TEST_F(LazyStreams, BlockingStreamsAreWaitedForByTheLegacyOne) {
  const Buffer<int> value(std::vector<int>{1});
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaSuccess, cudaStreamCreate(&blocking));
  set_lazy_streams(true);
  ASSERT_EQ(cudaSuccess, start(in(blocking), add_number, value.data(), 4));
  EXPECT_EQ(5, value.values()[0]);
  ASSERT_EQ(cudaSuccess, cudaStreamDestroy(blocking));
}

TEST_F(LazyStreams, HostThreadsWaitForEachOthersStreams) {
  const Buffer<int> value(std::vector<int>{1});
  set_lazy_streams(true);
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 4));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] { EXPECT_EQ(cudaSuccess, cudaEventSynchronize(event_)); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(5, value.values()[0]);
}

// --- streams that do at once
// --------------------------------------------------------------------------------
TEST_F(Streams, HostFunctionsRunInOrderOutsideTheDevice) {
  const Buffer<int> value(std::vector<int>{1});
  int seen = 0;
  ASSERT_EQ(cudaSuccess, cudaLaunchHostFunc(
                             one_, [](void* to) { *static_cast<int*>(to) = 7; }, &seen));
  EXPECT_EQ(7, seen);
}

TEST_F(Streams, EventsTellTheTime) {
  cudaEvent_t start_event = nullptr, end_event = nullptr;
  ASSERT_EQ(cudaSuccess, cudaEventCreate(&start_event));
  ASSERT_EQ(cudaSuccess, cudaEventCreate(&end_event));
  float milliseconds = -1;
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&milliseconds, start_event, end_event));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(start_event, one_));
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(end_event, one_));
  ASSERT_EQ(cudaSuccess, cudaEventSynchronize(end_event));
  ASSERT_EQ(cudaSuccess, cudaEventElapsedTime(&milliseconds, start_event, end_event));
  EXPECT_GE(milliseconds, 3);
  EXPECT_EQ(cudaSuccess, cudaEventDestroy(start_event));
  EXPECT_EQ(cudaSuccess, cudaEventDestroy(end_event));
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventRecord(end_event, one_));
}

TEST_F(Streams, StaleHandlesAreRefused) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaSuccess, cudaStreamCreate(&stream));
  ASSERT_EQ(cudaSuccess, cudaStreamDestroy(stream));
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(stream));
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaStreamDestroy(stream));
}

// --- captures
// -----------------------------------------------------------------------------------------------
TEST_F(Captures, AGraphRepeatsTheArgumentsOfItsCapture) {
  for (const bool lazy : {false, true}) {
    set_lazy_streams(false);
    const Buffer<int> value(std::vector<int>{1});
    set_lazy_streams(lazy);
    int number = 10;
    begin();
    ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), number));
    number = 500;
    ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), number));
    const auto graph = end();
    number = 9999;
    EXPECT_EQ(2u, nodes_);
    EXPECT_EQ(std::vector<int>{1}, value.values());  // nothing has been done
    run(graph, 3);
    EXPECT_EQ(std::vector<int>{1531}, value.values());
  }
}

TEST_F(Captures, CopiesAndFillsAreRecorded) {
  const Buffer<int> value(std::vector<int>{1, 1});
  int* locked = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMallocHost(&locked, 2 * sizeof(int)));
  begin();
  ASSERT_EQ(cudaSuccess, cudaMemsetAsync(value.data(), 0, sizeof(int), one_));
  ASSERT_EQ(cudaSuccess, cudaMemcpyAsync(locked, value.data(), 8, cudaMemcpyDeviceToHost, one_));
  run(end());
  EXPECT_EQ(2u, nodes_);
  EXPECT_EQ(0, locked[0]);
  EXPECT_EQ(1, locked[1]);
  ASSERT_EQ(cudaSuccess, cudaFreeHost(locked));
}

TEST_F(Captures, OtherStreamsJoinByEvents) {
  const Buffer<int> sums(std::vector<int>{1, 1});
  begin();
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, sums.data(), 1));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  ASSERT_EQ(cudaSuccess, cudaStreamWaitEvent(other_, event_));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  EXPECT_EQ(cudaSuccess, cudaStreamIsCapturing(other_, &status));
  EXPECT_EQ(cudaStreamCaptureStatusActive, status);
  ASSERT_EQ(cudaSuccess, start(in(other_), add_number, sums.data() + 1, 10));
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, other_));
  ASSERT_EQ(cudaSuccess, cudaStreamWaitEvent(one_, event_));
  run(end());
  EXPECT_EQ((std::vector<int>{2, 11}), sums.values());
  EXPECT_EQ(cudaSuccess, cudaStreamIsCapturing(other_, &status));
  EXPECT_EQ(cudaStreamCaptureStatusNone, status);
}

TEST_F(Captures, SeedsFindAMissingOrderInGraphs) {
  int early = 0;
  for (unsigned seed = 0; seed < 10; ++seed) {
    set_schedule_seed(seed);
    EXPECT_EQ(20, add_and_multiply(true));
    if (add_and_multiply(false) != 20) ++early;
  }
  EXPECT_GT(early, 0);
}

TEST_F(Captures, WorkOfOtherStreamsMustBeJoined) {
  const Buffer<int> value(std::vector<int>{1});
  begin();
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  ASSERT_EQ(cudaSuccess, cudaStreamWaitEvent(other_, event_));
  ASSERT_EQ(cudaSuccess, start(in(other_), add_number, value.data(), 1));
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(other_, &graph));
  EXPECT_EQ(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(one_, &graph));
  EXPECT_EQ(nullptr, graph);
}

TEST_F(Captures, CallsThatWaitOrAllocateSpoilThem) {
  const Buffer<int> value(std::vector<int>{1});
  int host = 0;
  int* pointer = nullptr;
  const std::vector<std::function<cudaError_t()>> calls = {
      [&] { return cudaStreamSynchronize(one_); },
      [&] { return cudaStreamQuery(one_); },
      [&] { return cudaDeviceSynchronize(); },
      [&] { return cudaMalloc(&pointer, 4); },
      [&] { return cudaMallocAsync(&pointer, 4, one_); },
      [&] { return cudaFree(value.data()); },
      [&] { return cudaFreeAsync(value.data(), one_); },
      [&] { return cudaMallocHost(&pointer, 4); },
      [&] { return cudaMemcpy(&host, value.data(), 4, cudaMemcpyDeviceToHost); }};
  for (const auto& call : calls) {
    begin();
    EXPECT_EQ(cudaErrorStreamCaptureUnsupported, call());
    EXPECT_EQ(cudaErrorStreamCaptureInvalidated, start(in(one_), add_number, value.data(), 1));
    expect_spoiled();
  }
}

TEST_F(Captures, OtherHostThreadsDisturbOnlyGlobalOnes) {
  const auto allocate = [] {
    int* pointer = nullptr;
    const cudaError_t error = cudaMalloc(&pointer, 4);
    if (error == cudaSuccess) cudaFree(pointer);
    return error;
  };
  cudaError_t error = cudaErrorUnknown;
  begin();
  std::thread([&] { error = allocate(); }).join();
  EXPECT_EQ(cudaSuccess, error);
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(end()));
  ASSERT_EQ(cudaSuccess, cudaStreamBeginCapture(one_, cudaStreamCaptureModeGlobal));
  std::thread([&] { error = allocate(); }).join();
  EXPECT_EQ(cudaErrorStreamCaptureUnsupported, error);
  expect_spoiled();
  ASSERT_EQ(cudaSuccess, cudaStreamBeginCapture(one_, cudaStreamCaptureModeRelaxed));
  EXPECT_EQ(cudaSuccess, allocate());
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(end()));
}

TEST_F(Captures, EventsFromOutsideAreNotWaitedFor) {
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, other_));
  begin();
  EXPECT_EQ(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(one_, event_));
  expect_spoiled();
}

TEST_F(Captures, CapturedEventsAreNoEventsOfTheHost) {
  begin();
  ASSERT_EQ(cudaSuccess, cudaEventRecord(event_, one_));
  EXPECT_EQ(cudaErrorCapturedEvent, cudaEventSynchronize(event_));
  expect_spoiled();
}

TEST_F(Captures, ExternalEventsAreRecordedByLaunches) {
  const Buffer<int> value(std::vector<int>{1});
  begin();
  ASSERT_EQ(cudaSuccess, start(in(one_), add_number, value.data(), 1));
  ASSERT_EQ(cudaSuccess, cudaEventRecordWithFlags(event_, one_, cudaEventRecordExternal));
  run(end());
  EXPECT_EQ(2u, nodes_);
  EXPECT_EQ(cudaSuccess, cudaEventSynchronize(event_));
}

TEST_F(Captures, GraphsAreLaunchedInsideOthers) {
  const Buffer<int> value(std::vector<int>{1});
  begin();
  ASSERT_EQ(cudaSuccess, start(in(one_), multiply_by, value.data(), 2));
  const auto inner = end();
  begin();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaSuccess, cudaGraphLaunch(inner, one_));
  run(end(), 2);
  EXPECT_EQ(64, value.values()[0]);
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(inner));
}

}  // namespace
}  // namespace cuda_on_cpu::test
