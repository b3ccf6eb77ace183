// Many small launches as one: a CUDA graph of the work that a loop puts on the stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <list>
#include <vector>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

/// Work that comes again with the same arguments. The first time it runs as it is (libraries may load code
/// then), the second time it is captured, and from then on replayed.
class Recording {
 public:
  /// All that the captured launches depend on: pointers, counts.
  using Key = std::vector<std::uintptr_t>;

  Recording() = default;
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// `work` puts kernels, copies and products on the device's stream and neither waits nor allocates.
  void run(Device& device, const Key& key, const std::function<void()>& work);
  /// Graphs in memory.
  int graphs() const;

 private:
  struct Entry {
    Key key;
    cudaGraphExec_t graph = nullptr;
  };
  static constexpr std::size_t kMostEntries = 8;

  Entry* find(const Key& key);
  void remember(const Key& key);
  static cudaGraphExec_t capture(Device& device, const std::function<void()>& work);

  std::list<Entry> entries_;  ///< the latest first
};

}  // namespace lamina::cuda
