// Fibers: stacks that run one at a time on an OS thread and hand over to each other.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <vector>

#if defined(__x86_64__)
// A switch of stacks takes 10 ns so, 30 with longjmp() and 300 with swapcontext(), which asks the kernel; and
// a shuffle needs one per lane. Saves what functions must keep in `from`; goes on where `to` was saved.
extern "C" void cuda_on_cpu_switch(void** from, void* to);
#endif

namespace cuda_on_cpu {

/// A place to go on: a fiber, or the OS thread's own stack.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  /// Runs `entry` on a stack of its own at the next switch to it; forgets where it was.
  void begin(std::byte* stack, std::size_t bytes, void (*entry)());
  /// Goes on at `next`; returns when someone switches to this.
  void switch_to(Context& next);
  /// To be called first of all on a new stack.
  static void arrived();

 private:
  void tell_sanitizer_of(Context& next);
  void tell_sanitizer_of_return();

#if defined(__x86_64__)
  void* top_ = nullptr;  ///< of the stack, with the registers on it
#else
  ucontext_t place_ = {};
#endif
  std::byte* stack_ = nullptr;  ///< null for the OS thread's own
  std::size_t bytes_ = 0;
  void* sanitizer_ = nullptr;
};

inline void Context::switch_to(Context& next) {
  tell_sanitizer_of(next);
#if defined(__x86_64__)
  cuda_on_cpu_switch(&top_, next.top_);
#else
  swapcontext(&place_, &next.place_);
#endif
  tell_sanitizer_of_return();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
inline void Context::tell_sanitizer_of(Context&) {}
inline void Context::tell_sanitizer_of_return() {}
#endif

struct Fiber {
  Context context;
  std::byte* stack = nullptr;
  std::size_t bytes = 0;
  bool in_use = false;
};

/// Fibers of an OS thread, kept from launch to launch.
class FiberPool {
 public:
  explicit FiberPool(void (*entry)()) : entry_(entry) {}
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;
  ~FiberPool();

  Fiber& take();
  void give_back(Fiber& fiber);
  /// Takes back all, wherever they are: they begin anew.
  void abandon_all();
  /// Whether the address is where a fiber comes to when its stack is used up.
  bool is_guard(const void* address) const;

 private:
  void grow();

  void (*entry_)();
  std::vector<std::byte*> slabs_;
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};

}  // namespace cuda_on_cpu
