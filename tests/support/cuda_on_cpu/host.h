// What the runtime remembers of every host thread, its devices, and how calls end.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda_on_cpu/runtime_api.h"
#include "tests/support/cuda_on_cpu/exchange_order.h"

namespace cuda_on_cpu {

inline constexpr std::size_t kSharedPerBlock = std::size_t{48} << 10;  // without asking for more
inline constexpr std::size_t kSharedPerBlockOptin = std::size_t{227} << 10;
inline constexpr std::size_t kSharedPerMultiprocessor = std::size_t{228} << 10;
inline constexpr std::size_t kSharedReserved = 1024;  // of each block, by the driver
inline constexpr int kMaxThreadsPerBlock = 1024;
inline constexpr int kMaxThreadsPerMultiprocessor = 2048;
inline constexpr int kMaxBlocksPerMultiprocessor = 32;
inline constexpr int kMaxDevices = 16;

/// What tests may set; see cuda_on_cpu.h.
struct Settings {
  std::atomic<int> devices{1};
  std::atomic<int> multiprocessors{4};
  std::atomic<std::size_t> memory{std::size_t{64} << 30};
  std::atomic<unsigned> seed{0};
  std::atomic<bool> lazy{false};
  std::atomic<double> patience{60};
};
Settings& settings();

/// Errors are those of a host thread here, although all threads of a process share them on a GPU: the ranks
/// that are threads in a test are processes with a GPU of their own elsewhere.
struct HostThread {
  int device = 0;
  cudaError_t last = cudaSuccess;
  cudaError_t lasting = cudaSuccess;  ///< a kernel failed: every later call does
  std::string complaint;
  Past past;  ///< of what it has waited for
};
HostThread& host_thread();

/// The end of every call: remembers an error, and why. What failed for good goes before.
cudaError_t finish(cudaError_t error);
cudaError_t finish(cudaError_t error, std::string why);
/// A kernel failed: says so at once, and from now on with every call.
void fail_for_good(cudaError_t error, const std::string& why);
/// What stops every call: no device, or an error that lasts.
cudaError_t obstacle();

/// Objects that programs hold by pointers; a stale one is not found.
template <class Object>
class Handles {
 public:
  Object* add(std::shared_ptr<Object> object) {
    Object* handle = object.get();
    const std::lock_guard lock(mutex_);
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  std::shared_ptr<Object> find(Object* handle) const {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  std::shared_ptr<Object> remove(Object* handle) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    if (found == objects_.end()) return nullptr;
    auto object = std::move(found->second);
    objects_.erase(found);
    return object;
  }
  template <class Visit>
  void for_each(Visit visit) const {
    std::vector<std::shared_ptr<Object>> all;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [handle, object] : objects_) all.push_back(object);
    }
    for (const auto& object : all) visit(object);
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<Object*, std::shared_ptr<Object>> objects_;
};

}  // namespace cuda_on_cpu
