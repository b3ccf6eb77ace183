// Captures: what streams would do is kept in a graph, and done at every launch of it.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "tests/support/cuda_on_cpu/streams.h"

struct CUgraphNode_st {
  cuda_on_cpu::Work work;
  std::vector<std::size_t> after;  ///< numbers of the nodes that must come before
};
struct CUgraph_st {
  std::vector<std::shared_ptr<CUgraphNode_st>> nodes;  ///< in the order of capture
  std::set<const void*> exchanges;                     ///< the groups that exchange in it
};
struct CUgraphExec_st {
  CUgraph_st graph;
};

namespace cuda_on_cpu {

struct Capture {
  CUgraph_st graph;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  const void* thread = nullptr;  ///< that began it
  const CUstream_st* origin = nullptr;
  std::vector<std::shared_ptr<CUstream_st>> streams;
  bool is_valid = true;
};

// With streams_mutex() held:
cudaError_t record_node(CUstream_st& stream, Work work);
/// A call that may not be in a capture: spoils those that it disturbs.
cudaError_t refuse_in_capture(CUstream_st& stream);
cudaError_t refuse_in_captures_of_others();
/// The legacy stream would wait for a stream that captures.
cudaError_t refuse_implicit();

}  // namespace cuda_on_cpu
