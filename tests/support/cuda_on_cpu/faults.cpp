#include "tests/support/cuda_on_cpu/faults.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "tests/support/cuda_on_cpu/memory.h"
#include "tests/support/cuda_on_cpu/scheduler.h"

namespace cuda_on_cpu {
namespace {

struct sigaction before_segv, before_bus;

using Text = std::array<char, 512>;

void say(const char* words) {
  const auto written = write(STDERR_FILENO, words, std::char_traits<char>::length(words));
  static_cast<void>(written);
}

/// "device code touched 0x…, "
void say_touched(const char* who, const void* address) {
  Text text;
  std::snprintf(text.data(), text.size(), "cuda_on_cpu: %s touched %p, ", who, address);
  say(text.data());
}

/// What lies at the address, as far as allocations tell.
void say_what_is_at(const void* address) {
  const auto nearest = nearest_without_waiting(address);
  if (!nearest) {
    say("where nothing is allocated");
    return;
  }
  Text text;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - nearest->start);
  const auto number = static_cast<unsigned long long>(nearest->number);
  if (offset < nearest->bytes) {
    std::snprintf(text.data(), text.size(), "byte %zu of the allocation of %zu bytes (number %llu)", offset,
                  nearest->bytes, number);
  } else {
    std::snprintf(
        text.data(), text.size(),
        "freed or never allocated, %zu bytes after the end of the allocation of %zu bytes (number %llu)",
        offset - nearest->bytes, nearest->bytes, number);
  }
  say(text.data());
}

void say_who_runs() {
  Text text;
  describe_running_thread(text.data(), text.size());
  say(": ");
  say(text.data());
}

/// Whether the touch may be tried again; else says what is wrong with it.
bool is_allowed(int signal, const void* address) {
  const bool at_work = at_work_on_this_thread();
  if (is_stack_guard(address)) {
    say("cuda_on_cpu: the stack is used up");
    say_who_runs();
  } else if (!in_device_space(address)) {
    if (!at_work) return false;  // nothing of ours
    say_touched("device code", address);
    say("which is no device memory");
    say_who_runs();
  } else if (at_work) {
    if (signal == SIGSEGV && open_by_fault(address)) return true;
    say_touched("device code", address);
    say_what_is_at(address);
    say_who_runs();
  } else {
    say_touched("host code", address);
    say("device memory: ");
    say_what_is_at(address);
  }
  say("\n");
  return false;
}

void handle(int signal, siginfo_t* info, void*) {
  if (is_allowed(signal, info->si_addr)) return;
  // The touch is repeated, and ends as it did before we were here.
  sigaction(signal, signal == SIGSEGV ? &before_segv : &before_bus, nullptr);
}

/// Where the handler runs: a stack that is used up has no room for it.
struct AlternateStack {
  AlternateStack() {
    stack_t there = {};
    sigaltstack(nullptr, &there);
    if ((there.ss_flags & SS_DISABLE) == 0) return;  // the sanitizers made one
    memory = std::malloc(kBytes);
    stack_t ours = {};
    ours.ss_sp = memory;
    ours.ss_size = kBytes;
    sigaltstack(&ours, nullptr);
  }
  ~AlternateStack() {
    if (memory == nullptr) return;
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    std::free(memory);
  }
  AlternateStack(const AlternateStack&) = delete;
  AlternateStack& operator=(const AlternateStack&) = delete;

  static constexpr std::size_t kBytes = std::size_t{64} << 10;
  void* memory = nullptr;
};

}  // namespace

void explain_faults() {
  thread_local const AlternateStack stack;
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
  });
}

}  // namespace cuda_on_cpu
