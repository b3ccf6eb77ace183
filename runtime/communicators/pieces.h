// Long arrays travel in pieces that fit where they pass through.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace lamina {

/// step(first, size) over consecutive pieces of at most `limit`; at least one, so that an empty array still
/// meets its peers.
template <class Step>
void for_pieces(std::size_t total, std::size_t limit, const Step& step) {
  std::size_t first = 0;
  do {
    const std::size_t size = std::min(limit, total - first);
    step(first, size);
    first += size;
  } while (first < total);
}

inline std::byte* as_bytes(void* data) { return static_cast<std::byte*>(data); }
inline const std::byte* as_bytes(const void* data) { return static_cast<const std::byte*>(data); }

/// Of a copy at a time: from some length on memcpy leaves the work to the processor's own instruction for it,
/// which is slow with memory that another core holds.
constexpr std::size_t kPieceBytes = 2048;
constexpr std::size_t kLineBytes = 64;

/// memcpy that takes empty ranges without an address.
inline void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (to == from) return;
  while (bytes > 0) {
    const std::size_t piece = std::min(bytes, kPieceBytes);
    std::memcpy(to, from, piece);
    to = as_bytes(to) + piece;
    from = as_bytes(from) + piece;
    bytes -= piece;
  }
}

/// Begins to make a line of memory this core's own. (GCC drops its own builtin from functions that do nothing
/// else, and writes another instruction for processors of unknown make.)
inline void fetch_for_writing(const std::byte* line) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*line));  // does nothing on a processor that lacks it
#else
  __builtin_prefetch(line, 1);
#endif
}

/// copy_bytes() to memory that other cores have read: its lines are called in together, where stores would
/// call a few at a time. One or two come sooner without.
inline void publish_bytes(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes <= 2 * kLineBytes) return copy_bytes(to, from, bytes);
  for_pieces(bytes, kPieceBytes, [&](std::size_t first, std::size_t size) {
    for (std::size_t i = 0; i < size; i += kLineBytes) fetch_for_writing(to + first + i);
    copy_bytes(to + first, from + first, size);
  });
}

/// One rank's equal share of `count` elements; the last ranks' are shorter or empty.
struct ElementShare {
  std::size_t first, count;

  static std::size_t width(std::size_t count, std::size_t ranks) { return (count + ranks - 1) / ranks; }
  static ElementShare of(std::size_t count, std::size_t rank, std::size_t ranks) {
    const std::size_t first = std::min(count, rank * width(count, ranks));
    return {first, std::min(count - first, width(count, ranks))};
  }
};

}  // namespace lamina
