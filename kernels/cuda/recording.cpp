#include "kernels/cuda/recording.h"

#include <algorithm>

#include "kernels/cuda/error.h"

namespace lamina::cuda {
namespace {

void destroy(cudaGraphExec_t graph) {
  if (graph != nullptr) report(cudaGraphExecDestroy(graph), "cudaGraphExecDestroy");
}

}  // namespace

Recording::~Recording() {
  for (const Entry& entry : entries_) destroy(entry.graph);
}

void Recording::run(Device& device, const Key& key, const std::function<void()>& work) {
  Entry* entry = find(key);
  if (entry == nullptr) {
    work();
    remember(key);
    return;
  }
  if (entry->graph == nullptr) entry->graph = capture(device, work);
  verify(cudaGraphLaunch(entry->graph, device.stream()), "cudaGraphLaunch");
}

int Recording::graphs() const {
  return static_cast<int>(
      std::ranges::count_if(entries_, [](const Entry& entry) { return entry.graph != nullptr; }));
}

Recording::Entry* Recording::find(const Key& key) {
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return &entries_.front();
}

void Recording::remember(const Key& key) {
  entries_.push_front({key});
  if (entries_.size() <= kMostEntries) return;
  destroy(entries_.back().graph);  // one that runs goes on
  entries_.pop_back();
}

cudaGraphExec_t Recording::capture(Device& device, const std::function<void()>& work) {
  verify(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    static_cast<void>(cudaStreamEndCapture(device.stream(), &graph));  // the first error is the one to tell
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
    throw;
  }
  verify(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t made = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&made, graph, 0);
  report(cudaGraphDestroy(graph), "cudaGraphDestroy");
  verify(code, "cudaGraphInstantiate");
  return made;
}

}  // namespace lamina::cuda
