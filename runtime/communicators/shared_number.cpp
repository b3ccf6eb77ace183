#include "runtime/communicators/shared_number.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <climits>
#include <ctime>

namespace lamina {
namespace {

// std::atomic::wait serves the threads of one process only. The kernel looks at the lower half of the number.
void futex(std::atomic<std::uint64_t>& number, int operation, std::uint32_t value,
           const std::timespec* timeout) {
  static_assert(sizeof number == sizeof(std::uint64_t) && std::atomic<std::uint64_t>::is_always_lock_free);
  static_assert(std::endian::native == std::endian::little, "the lower half must come first");
  syscall(SYS_futex, &number, operation, value, timeout, nullptr, 0);
}

}  // namespace

void SharedNumber::Sleeper::sleep_while(std::uint64_t seen) noexcept {
  const std::timespec timeout{.tv_sec = 0, .tv_nsec = 1'000'000};
  // Returns at once where the number has changed meanwhile; woken early for whatever reason, the caller looks
  // again.
  futex(number_.number_, FUTEX_WAIT, static_cast<std::uint32_t>(seen), &timeout);
}

void SharedNumber::wake_all() noexcept { futex(number_, FUTEX_WAKE, INT_MAX, nullptr); }

}  // namespace lamina
