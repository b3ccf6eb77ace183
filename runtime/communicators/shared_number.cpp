#include "runtime/communicators/shared_number.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace lamina {
namespace {

// std::atomic::wait serves the threads of one process only.
void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const std::timespec* timeout) {
  static_assert(sizeof word == sizeof(std::uint32_t) && std::atomic<std::uint32_t>::is_always_lock_free);
  syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

}  // namespace

void SharedNumber::sleep_while(std::uint32_t number) noexcept {
  const std::timespec timeout{.tv_sec = 0, .tv_nsec = 1'000'000};
  sleepers_.fetch_add(1);
  // Returns at once where the number has changed meanwhile; woken early for whatever reason, the caller looks
  // again.
  futex(number_, FUTEX_WAIT, number, &timeout);
  sleepers_.fetch_sub(1);
}

void SharedNumber::wake_all() noexcept { futex(number_, FUTEX_WAKE, INT_MAX, nullptr); }

}  // namespace lamina
