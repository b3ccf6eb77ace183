// Kernels: what a launch is refused for, and what functions remember.
#include "cuda_on_cpu/launch.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "tests/support/cuda_on_cpu/host.h"
#include "tests/support/cuda_on_cpu/kernel_names.h"
#include "tests/support/cuda_on_cpu/memory.h"
#include "tests/support/cuda_on_cpu/scheduler.h"
#include "tests/support/cuda_on_cpu/streams.h"

namespace cuda_on_cpu {
namespace {

/// Dynamic shared memory that kernels were allowed, where it is not the usual.
class SharedLimits {
 public:
  void set(const void* function, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limits_[function] = bytes;
  }
  std::size_t of(const void* function) const {
    const std::lock_guard lock(mutex_);
    const auto found = limits_.find(function);
    return found == limits_.end() ? kSharedPerBlock : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<const void*, std::size_t> limits_;
};
SharedLimits& shared_limits() {
  static auto& of_the_process = *new SharedLimits;
  return of_the_process;
}

std::uint64_t count_of(const dim3& extent) { return std::uint64_t{extent.x} * extent.y * extent.z; }

bool is_possible_block(const dim3& block) {
  return count_of(block) >= 1 && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
         count_of(block) <= static_cast<std::uint64_t>(kMaxThreadsPerBlock);
}
bool is_possible_grid(const dim3& grid) {
  return count_of(grid) >= 1 && grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535;
}

int blocks_per_multiprocessor(std::uint64_t threads, std::size_t dynamic_shared) {
  const auto warps_threads = static_cast<int>((threads + 31) / 32 * 32);
  const auto by_shared = static_cast<int>(kSharedPerMultiprocessor / (dynamic_shared + kSharedReserved));
  return std::min({kMaxThreadsPerMultiprocessor / warps_threads, by_shared, kMaxBlocksPerMultiprocessor});
}

/// What the attributes of a launch ask for.
struct Wishes {
  bool cooperative = false, impossible = false;
};
Wishes wishes_of(const cudaLaunchConfig_t& config) {
  Wishes wishes;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const auto& attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative) wishes.cooperative = attribute.val.cooperative != 0;
    const auto& cluster = attribute.val.clusterDim;
    if (attribute.id == cudaLaunchAttributeClusterDimension && cluster.x * cluster.y * cluster.z != 1)
      wishes.impossible = true;
  }
  return wishes;
}

struct Refusal {
  cudaError_t error = cudaSuccess;
  std::string why;
};

Refusal refusal_of(const cudaLaunchConfig_t& config, const Kernel& kernel, const Wishes& wishes) {
  if (wishes.impossible)
    return {cudaErrorNotSupported, "there are no clusters of blocks on the emulated GPU"};
  if (!is_possible_block(config.blockDim)) return {cudaErrorInvalidConfiguration, "no possible block size"};
  if (!is_possible_grid(config.gridDim)) return {cudaErrorInvalidConfiguration, "no possible grid size"};
  const std::size_t shared = config.dynamicSmemBytes;
  if (shared > kSharedPerBlock && shared > shared_limits().of(kernel.function)) {
    return {cudaErrorInvalidValue, std::to_string(shared) +
                                       " bytes of dynamic shared memory, more than "
                                       "cudaFuncAttributeMaxDynamicSharedMemorySize allows"};
  }
  const auto resident =
      static_cast<std::uint64_t>(blocks_per_multiprocessor(count_of(config.blockDim), shared)) *
      static_cast<std::uint64_t>(settings().multiprocessors);
  if (wishes.cooperative && count_of(config.gridDim) > resident) {
    return {cudaErrorCooperativeLaunchTooLarge, std::to_string(count_of(config.gridDim)) +
                                                    " blocks, of which " + std::to_string(resident) +
                                                    " can run at once"};
  }
  return {};
}

/// Device code cannot read what only the host has, but emulated it could: so we look.
bool is_for_device(const void* pointer) {
  return pointer == nullptr || find_device(pointer) || is_page_locked(pointer);
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t* config, Kernel kernel) {
  if (const auto error = obstacle()) return finish(error);
  const Wishes wishes = wishes_of(*config);
  if (auto [error, why] = refusal_of(*config, kernel, wishes); error != cudaSuccess)
    return finish(error, kernel_name(kernel.function) + ": " + why);
  const auto stream = find_stream(config->stream);
  if (!stream) return finish(cudaErrorInvalidResourceHandle);
  if (!stream->is_legacy && stream->device != host_thread().device)
    return finish(cudaErrorInvalidResourceHandle, "the stream is another device's");
  return issue(config->stream,
               [pointers = std::move(kernel.pointers),
                grid = std::make_shared<const Grid>(Grid{.function = kernel.function,
                                                         .body = std::move(kernel.body),
                                                         .blocks = config->gridDim,
                                                         .threads = config->blockDim,
                                                         .shared_bytes = config->dynamicSmemBytes,
                                                         .cooperative = wishes.cooperative})] {
                 const auto wrong = std::find_if_not(pointers.begin(), pointers.end(),
                                                     [](const void* p) { return is_for_device(p); });
                 if (wrong == pointers.end()) return run(*grid);
                 fail_for_good(cudaErrorIllegalAddress,
                               kernel_name(grid->function) + ": its pointer argument " +
                                   std::to_string(wrong - pointers.begin() + 1) +
                                   " (of those that are pointers) is neither device memory nor page-locked");
                 return cudaErrorIllegalAddress;
               });
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace)

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (const auto error = obstacle()) return finish(error);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > kSharedPerBlockOptin)
    return finish(cudaErrorInvalidValue, "more shared memory than a block can have");
  shared_limits().set(function, static_cast<std::size_t>(value));
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  if (const auto error = obstacle()) return finish(error);
  *attributes = {};
  attributes->maxThreadsPerBlock = kMaxThreadsPerBlock;
  attributes->numRegs = 32;
  attributes->ptxVersion = attributes->binaryVersion = 90;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(shared_limits().of(function));
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int block_size,
                                                          std::size_t dynamic_shared_bytes) {
  if (const auto error = obstacle()) return finish(error);
  if (block_size < 1 || block_size > kMaxThreadsPerBlock) return finish(cudaErrorInvalidValue);
  const bool fits = dynamic_shared_bytes <= std::max(kSharedPerBlock, shared_limits().of(function));
  *blocks =
      fits ? blocks_per_multiprocessor(static_cast<std::uint64_t>(block_size), dynamic_shared_bytes) : 0;
  return cudaSuccess;
}
