#include "tests/support/cuda_on_cpu/graphs.h"

#include <algorithm>
#include <random>

namespace cuda_on_cpu {
namespace {

using Lock = std::unique_lock<std::mutex>;
using Nodes = std::vector<std::shared_ptr<CUgraphNode_st>>;

Handles<CUgraph_st>& graphs() {
  static auto& of_the_process = *new Handles<CUgraph_st>;
  return of_the_process;
}
Handles<CUgraphExec_st>& executables() {
  static auto& of_the_process = *new Handles<CUgraphExec_st>;
  return of_the_process;
}
/// Those that have begun and not ended.
std::vector<std::shared_ptr<Capture>>& captures() {
  static auto& of_the_process = *new std::vector<std::shared_ptr<Capture>>;
  return of_the_process;
}

/// What this thread may do during captures; see cudaThreadExchangeStreamCaptureMode().
cudaStreamCaptureMode& mode_of_this_thread() {
  thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  return mode;
}

/// Whether a call of this thread that may not be in captures disturbs this one.
bool is_disturbed(const Capture& capture) {
  const cudaStreamCaptureMode allowed = mode_of_this_thread();
  if (allowed == cudaStreamCaptureModeRelaxed) return false;
  if (capture.thread == &host_thread()) return capture.mode != cudaStreamCaptureModeRelaxed;
  return allowed == cudaStreamCaptureModeGlobal && capture.mode == cudaStreamCaptureModeGlobal;
}

/// Of the nodes, which come before those of `frontier`, themselves included.
std::vector<bool> before(const Nodes& nodes, const std::vector<std::size_t>& frontier) {
  std::vector<bool> reached(nodes.size());
  for (const std::size_t node : frontier) reached[node] = true;
  for (std::size_t node = nodes.size(); node-- > 0;)
    if (reached[node])
      for (const std::size_t earlier : nodes[node]->after) reached[earlier] = true;
  return reached;
}

/// Whether all that other streams did has been waited for.
bool is_joined(const Capture& capture, const CUstream_st& origin) {
  const std::vector<bool> reached = before(capture.graph.nodes, origin.frontier);
  return std::all_of(capture.streams.begin(), capture.streams.end(), [&](const auto& stream) {
    return std::all_of(stream->frontier.begin(), stream->frontier.end(),
                       [&](std::size_t node) { return reached[node]; });
  });
}

void end(Capture& capture) {
  for (const auto& stream : capture.streams) {
    stream->capture = nullptr;
    stream->frontier.clear();
  }
  std::erase_if(captures(), [&](const auto& other) { return other.get() == &capture; });
}

/// In the order of their capture.
cudaError_t run_in_order(const Nodes& nodes) {
  for (const auto& node : nodes)
    if (const auto error = node->work()) return error;
  return cudaSuccess;
}

/// In some other order that keeps to what comes after what.
cudaError_t run_shuffled(const Nodes& nodes, unsigned seed) {
  std::mt19937 dice(seed);
  std::vector<std::vector<std::size_t>> later(nodes.size());
  std::vector<std::size_t> missing(nodes.size()), ready;
  for (std::size_t node = 0; node < nodes.size(); ++node) {
    for (const std::size_t earlier : nodes[node]->after) later[earlier].push_back(node);
    missing[node] = nodes[node]->after.size();
    if (missing[node] == 0) ready.push_back(node);
  }
  while (!ready.empty()) {
    std::swap(ready[dice() % ready.size()], ready.back());
    const std::size_t node = ready.back();
    ready.pop_back();
    if (const auto error = nodes[node]->work()) return error;
    for (const std::size_t next : later[node])
      if (--missing[next] == 0) ready.push_back(next);
  }
  return cudaSuccess;
}

cudaError_t run_nodes(const Nodes& nodes) {
  const unsigned seed = settings().seed;
  return seed == 0 ? run_in_order(nodes) : run_shuffled(nodes, seed);
}

}  // namespace

cudaError_t record_node(CUstream_st& stream, Work work) {
  Capture& capture = *stream.capture;
  if (!capture.is_valid) return cudaErrorStreamCaptureInvalidated;
  capture.graph.nodes.push_back(
      std::make_shared<CUgraphNode_st>(CUgraphNode_st{std::move(work), stream.frontier}));
  stream.frontier = {capture.graph.nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t refuse_in_capture(CUstream_st& stream) {
  stream.capture->is_valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_in_captures_of_others() {
  cudaError_t error = cudaSuccess;
  for (const auto& capture : captures()) {
    if (!is_disturbed(*capture)) continue;
    capture->is_valid = false;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

cudaError_t refuse_implicit() {
  cudaError_t error = cudaSuccess;
  for (const auto& capture : captures()) {
    const bool would_wait = std::any_of(capture->streams.begin(), capture->streams.end(), [](const auto& s) {
      return s->is_blocking && s->owner == &host_thread();
    });
    if (!would_wait) continue;
    capture->is_valid = false;
    error = cudaErrorStreamCaptureImplicit;
  }
  return error;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace)

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  if (stream->is_legacy) return finish(cudaErrorStreamCaptureUnsupported);
  const Lock lock(streams_mutex());
  if (stream->capture) return finish(cudaErrorIllegalState);
  stream->capture = std::make_shared<Capture>();
  stream->capture->mode = mode;
  stream->capture->thread = &host_thread();
  stream->capture->origin = stream.get();
  stream->capture->streams = {stream};
  stream->frontier.clear();
  captures().push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  const Lock lock(streams_mutex());
  const auto capture = stream->capture;
  if (!capture) return finish(cudaErrorIllegalState);
  if (capture->origin != stream.get()) return finish(cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != &host_thread())
    return finish(cudaErrorStreamCaptureWrongThread);
  const bool joined = is_joined(*capture, *stream);
  end(*capture);
  if (!capture->is_valid) return finish(cudaErrorStreamCaptureInvalidated);
  capture->is_valid = false;  // events may still name it
  if (!joined) return finish(cudaErrorStreamCaptureUnjoined);
  *graph = graphs().add(std::make_shared<CUgraph_st>(capture->graph));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  if (const auto error = obstacle()) return finish(error);
  const auto stream = find_stream(handle);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  const Lock lock(streams_mutex());
  *status = !stream->capture            ? cudaStreamCaptureStatusNone
            : stream->capture->is_valid ? cudaStreamCaptureStatusActive
                                        : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, mode_of_this_thread());
  return finish(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t handle, unsigned long long) {
  if (const auto error = obstacle()) return finish(error);
  const auto graph = graphs().find(handle);
  if (!graph) return finish(cudaErrorInvalidValue);
  *executable = executables().add(std::make_shared<CUgraphExec_st>(CUgraphExec_st{*graph}));
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  return finish(executables().find(executable) && find_stream(stream) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
  if (const auto error = obstacle()) return finish(error);
  auto executable = executables().find(handle);
  if (!executable) return finish(cudaErrorInvalidValue);
  for (const void* group : executable->graph.exchanges)
    if (const auto error = note_exchange(stream, group)) return finish(error);
  return issue(stream, [executable = std::move(executable)] { return run_nodes(executable->graph.nodes); });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, std::size_t* count) {
  const auto graph = graphs().find(handle);
  if (!graph) return finish(cudaErrorInvalidValue);
  if (nodes == nullptr) {
    *count = graph->nodes.size();
    return cudaSuccess;
  }
  for (std::size_t i = 0; i < *count; ++i)
    nodes[i] = i < graph->nodes.size() ? graph->nodes[i].get() : nullptr;
  *count = std::min(*count, graph->nodes.size());
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return finish(graphs().remove(graph) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return finish(executables().remove(executable) ? cudaSuccess : cudaErrorInvalidValue);
}
