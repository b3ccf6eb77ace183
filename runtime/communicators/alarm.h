// Tells the ranks of a job that one of them cannot go on. Lies in memory that they share, threads or
// processes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace lamina {

class Alarm {
 public:
  /// The first text stays; never throws, cuts what is too long. Whether this was the first.
  bool raise(const char* text) noexcept;
  /// As raise("rank 3 failed: reason").
  void raise_failure(int rank, const char* reason) noexcept;

  bool raised() const { return state_.load(std::memory_order_acquire) == kRaised; }
  /// PeerError with the text.
  void throw_if_raised() const {
    if (raised()) throw_peer_error();
  }
  const char* text() const { return text_.data(); }  ///< once raised

 private:
  static constexpr std::uint32_t kQuiet = 0, kBeingWritten = 1, kRaised = 2;
  [[noreturn]] void throw_peer_error() const;

  std::atomic<std::uint32_t> state_{kQuiet};
  std::array<char, 2044> text_{};
};

static_assert(std::atomic<std::uint32_t>::is_always_lock_free, "processes share it");

}  // namespace lamina
