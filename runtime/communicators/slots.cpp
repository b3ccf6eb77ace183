#include "runtime/communicators/slots.h"

#include <memory>
#include <new>

#include "runtime/communicators/backoff.h"
#include "runtime/communicators/shared_number.h"

namespace lamina {
namespace {

constexpr std::size_t kCacheLine = 64;

std::size_t round_up(std::size_t bytes) { return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine; }

// Every collective can move a piece for each rank.
std::size_t capacity_for(std::size_t slot_bytes, int ranks) {
  return round_up(std::max(slot_bytes, kCacheLine * static_cast<std::size_t>(ranks)));
}

// Processes map a segment at different addresses, but all page-aligned: they round up alike.
std::byte* aligned(std::byte* segment) {
  void* start = segment;
  std::size_t space = 2 * kCacheLine;
  return static_cast<std::byte*>(std::align(kCacheLine, kCacheLine, start, space));
}

}  // namespace

struct alignas(kCacheLine) Slots::Header {
  SharedNumber sequence;
  Call call;
};

std::size_t Slots::segment_bytes(std::size_t slot_bytes, int ranks) {
  return kCacheLine + 2 * (sizeof(Header) + capacity_for(slot_bytes, ranks)) + sizeof(Farewell);
}

void Slots::prepare(std::byte* segment, std::size_t slot_bytes, int ranks) {
  static_assert(sizeof(Header) == kCacheLine);
  std::byte* place = aligned(segment);
  const std::size_t slot = sizeof(Header) + capacity_for(slot_bytes, ranks);
  new (place) Header;
  new (place + slot) Header;
  new (place + 2 * slot) Farewell;
}

Slots::Slots(std::vector<std::byte*> segments, int rank, std::size_t slot_bytes, WatchedGroup group)
    : segments_(std::move(segments)),
      rank_(rank),
      capacity_(capacity_for(slot_bytes, size())),
      group_(std::move(group)) {
  for (std::byte*& segment : segments_) segment = aligned(segment);
}

Slots::Header& Slots::header(std::byte* segment, std::uint32_t sequence) const {
  return *std::launder(reinterpret_cast<Header*>(segment + (sequence & 1) * (sizeof(Header) + capacity_)));
}

std::byte* Slots::payload(std::byte* segment, std::uint32_t sequence) const {
  return segment + (sequence & 1) * (sizeof(Header) + capacity_) + sizeof(Header);
}

void Slots::exchange(const Call& call) {
  alarm().throw_if_raised();
  publish(call);
  wait_for_peers();
  group_.leave();
  compare_calls(call);
}

void Slots::publish(const Call& call) {
  Header& mine = header(segments_[static_cast<std::size_t>(rank_)], ++sequence_);
  mine.call = call;
  group_.enter(call);
  mine.sequence.publish(sequence_);
}

void Slots::wait_for_peers() {
  const Span span(SpanKind::waiting, "wait for peers");
  Backoff backoff;
  LongWait wait(group_.watch());
  for (std::byte* segment : segments_) {
    SharedNumber& published = header(segment, sequence_).sequence;
    for (std::uint32_t seen = published.load(); seen != sequence_; seen = published.load()) {
      alarm().throw_if_raised();
      if (backoff.wait_on_core()) continue;
      wait.look();
      published.sleep_while(seen);
    }
  }
}

void Slots::compare_calls(const Call& call) {
  const auto differs = [&](std::byte* segment) { return header(segment, sequence_).call != call; };
  if (std::none_of(segments_.begin(), segments_.end(), differs)) return;
  std::vector<Call> calls;
  for (std::byte* segment : segments_) calls.push_back(header(segment, sequence_).call);
  group_.watch().give_up(disagreement(calls, group_.names()).value());
}

void Slots::leave() noexcept {
  if (!alarm().raised()) publish({.operation = Operation::leave});
  group_.close();
}

bool Slots::leave_together() noexcept {
  if (!alarm().raised()) publish({.operation = Operation::leave});
  const bool together = farewell().all_leave(size(), group_.watch());
  group_.close();
  return together;
}

Farewell& Slots::farewell() {
  return *std::launder(reinterpret_cast<Farewell*>(segments_.front() + 2 * (sizeof(Header) + capacity_)));
}

}  // namespace lamina
