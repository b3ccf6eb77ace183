#include "runtime/communicators/alarm.h"

#include <cstdio>

#include "runtime/error.h"

namespace lamina {

bool Alarm::raise(const char* text) noexcept {
  std::uint32_t expected = kQuiet;
  if (!state_.compare_exchange_strong(expected, kBeingWritten)) return false;
  std::snprintf(text_.data(), text_.size(), "%s", text);
  state_.store(kRaised, std::memory_order_release);
  return true;
}

void Alarm::raise_failure(int rank, const char* reason) noexcept {
  std::array<char, sizeof(text_)> text;
  std::snprintf(text.data(), text.size(), "rank %d failed: %s", rank, reason);
  raise(text.data());
}

void Alarm::throw_peer_error() const { throw PeerError(text_.data()); }

}  // namespace lamina
