#include "tests/support/cuda_on_cpu/fibers.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(__x86_64__)
asm(R"(
.pushsection .text
.type cuda_on_cpu_switch, @function
.globl cuda_on_cpu_switch
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, . - cuda_on_cpu_switch
.popsection
)");
#endif

namespace cuda_on_cpu {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;
constexpr std::size_t kGuardBytes = std::size_t{64} << 10;  // no frame is so large that it steps over
constexpr std::size_t kStacksPerSlab = 64;

}  // namespace

Context::~Context() {
#if defined(__SANITIZE_THREAD__)
  if (stack_ != nullptr && sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
#endif
}

void Context::begin(std::byte* stack, std::size_t bytes, void (*entry)()) {
#if defined(__x86_64__)
  constexpr std::size_t kRegisters = 6;
  auto* top = reinterpret_cast<std::uintptr_t*>(stack + bytes) - 2;
  *--top = 0;  // where `entry` would return to
  *--top = reinterpret_cast<std::uintptr_t>(entry);
  for (std::size_t i = 0; i < kRegisters; ++i) *--top = 0;
  top_ = top;
#else
  getcontext(&place_);
  place_.uc_stack.ss_sp = stack;
  place_.uc_stack.ss_size = bytes;
  place_.uc_link = nullptr;
  makecontext(&place_, entry, 0);
#endif
  stack_ = stack;
  bytes_ = bytes;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack, bytes);  // of frames that were abandoned
#endif
#if defined(__SANITIZE_THREAD__)
  if (sanitizer_ != nullptr) __tsan_destroy_fiber(sanitizer_);
  sanitizer_ = nullptr;
#endif
}

#if defined(__SANITIZE_ADDRESS__)

void Context::tell_sanitizer_of(Context& next) {
  const void* lowest = next.stack_;
  std::size_t bytes = next.bytes_;
  if (lowest == nullptr) {
    pthread_attr_t attributes;
    pthread_getattr_np(pthread_self(), &attributes);
    void* own = nullptr;
    pthread_attr_getstack(&attributes, &own, &bytes);
    pthread_attr_destroy(&attributes);
    lowest = own;
  }
  __sanitizer_start_switch_fiber(&sanitizer_, lowest, bytes);
}
void Context::tell_sanitizer_of_return() { __sanitizer_finish_switch_fiber(sanitizer_, nullptr, nullptr); }

#elif defined(__SANITIZE_THREAD__)

void Context::tell_sanitizer_of(Context& next) {
  if (stack_ == nullptr) sanitizer_ = __tsan_get_current_fiber();
  if (next.sanitizer_ == nullptr) next.sanitizer_ = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(next.sanitizer_, 0);
}
void Context::tell_sanitizer_of_return() {}

#endif

void Context::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

FiberPool::~FiberPool() {
  all_.clear();
  for (std::byte* slab : slabs_) munmap(slab, kStackBytes * kStacksPerSlab);
}

Fiber& FiberPool::take() {
  if (free_.empty()) grow();
  Fiber& fiber = *free_.back();
  free_.pop_back();
  fiber.in_use = true;
  return fiber;
}

void FiberPool::give_back(Fiber& fiber) {
  fiber.in_use = false;
  free_.push_back(&fiber);
}

void FiberPool::abandon_all() {
  for (const auto& fiber : all_) {
    if (!fiber->in_use) continue;
    fiber->context.begin(fiber->stack, fiber->bytes, entry_);
    give_back(*fiber);
  }
}

bool FiberPool::is_guard(const void* address) const {
  const auto* byte = static_cast<const std::byte*>(address);
  for (const std::byte* slab : slabs_) {
    if (byte >= slab && byte < slab + kStackBytes * kStacksPerSlab)
      return static_cast<std::size_t>(byte - slab) % kStackBytes < kGuardBytes;
  }
  return false;
}

void FiberPool::grow() {
  void* memory = mmap(nullptr, kStackBytes * kStacksPerSlab, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) {
    std::fputs("cuda_on_cpu: no memory for the stacks of CUDA threads\n", stderr);
    std::abort();
  }
  auto* slab = static_cast<std::byte*>(memory);
  slabs_.push_back(slab);
  for (std::size_t i = 0; i < kStacksPerSlab; ++i) {
    std::byte* lowest = slab + i * kStackBytes;
    mprotect(lowest, kGuardBytes, PROT_NONE);
    auto fiber = std::make_unique<Fiber>();
    // The tops begin in different lines of the cache, or the threads of a block would evict each other's.
    const std::size_t lower = (all_.size() * 7 % 64) * 64;
    fiber->stack = lowest + kGuardBytes;
    fiber->bytes = kStackBytes - kGuardBytes - lower;
    fiber->context.begin(fiber->stack, fiber->bytes, entry_);
    all_.push_back(std::move(fiber));
  }
  for (std::size_t i = 1; i <= kStacksPerSlab; ++i) free_.push_back(all_[all_.size() - i].get());
}

}  // namespace cuda_on_cpu
