#include "runtime/communicators/slots.h"

#include <unistd.h>

#include <memory>
#include <new>
#include <thread>

#include "runtime/communicators/shared_number.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

constexpr std::size_t kCacheLine = 64;

/// Polled before anything else is tried: a pause can last as long as it takes a word to come.
constexpr int kRoundsWithoutPause = 100;

/// Of a word: below them the number of the exchange, of which a peer is never more than two away.
constexpr std::uint64_t kFingerprintBits = ~std::uint64_t{0xffff};

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// Every collective can move a piece for each rank.
std::size_t capacity_for(std::size_t slot_bytes, int ranks) {
  return round_up(std::max(slot_bytes, kCacheLine * static_cast<std::size_t>(ranks)), kLinePair);
}

// Processes map a segment at different addresses, but all page-aligned: they round up alike.
std::byte* aligned(std::byte* segment) {
  void* start = segment;
  std::size_t space = 2 * kLinePair;
  return static_cast<std::byte*>(std::align(kLinePair, kLinePair, start, space));
}

// Of the machine: a rank that is bound to one may use only that.
std::size_t cores() { return static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_ONLN)); }

std::uint64_t word_of(const Call& call, std::uint32_t sequence) {
  return (fingerprint(call) & kFingerprintBits) | (sequence & ~kFingerprintBits);
}

bool is_of(std::uint64_t word, std::uint32_t sequence) {
  return ((word ^ sequence) & ~kFingerprintBits) == 0;
}

}  // namespace

struct alignas(kLinePair) Slots::Header {
  SharedNumber word;
  alignas(kLinePair) Call call;
};

std::size_t Slots::segment_bytes(std::size_t slot_bytes, int ranks) {
  return kLinePair + 2 * (sizeof(Header) + capacity_for(slot_bytes, ranks)) + sizeof(Farewell);
}

void Slots::prepare(std::byte* segment, std::size_t slot_bytes, int ranks) {
  static_assert(sizeof(Header) % kLinePair == 0);
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
      group_(std::move(group)),
      spin_(group_.watch().ranks_on_node() > cores() ? Backoff::kShortSpin : Backoff::kSpin) {
  for (std::byte*& segment : segments_) segment = aligned(segment);
}

std::byte* Slots::slot(int rank, std::uint32_t sequence) const {
  return segments_[static_cast<std::size_t>(rank)] + (sequence & 1) * (sizeof(Header) + capacity_);
}

Slots::Header& Slots::header(int rank) const {
  return *std::launder(reinterpret_cast<Header*>(slot(rank, sequence_)));
}

std::byte* Slots::outgoing() { return slot(rank_, sequence_ + 1) + sizeof(Header); }

const std::byte* Slots::incoming(int rank) const { return slot(rank, sequence_) + sizeof(Header); }

std::uint64_t Slots::publish(const Call& call) {
  ++sequence_;
  Header& mine = header(rank_);
  const std::uint64_t word = word_of(call, sequence_);
  mine.call = call;
  group_.enter(call);
  mine.word.publish(word);
  return word;
}

std::uint64_t Slots::start(const Call& call) {
  alarm().throw_if_raised();
  return publish(call);
}

Slots::Exchange::Exchange(Slots& slots, const Call& call)
    : slots_(slots), word_(slots.start(call)), backoff_(slots.spin_), wait_(slots.group_.watch()) {}

bool Slots::Exchange::await(int rank) {
  SharedNumber& published = slots_.header(rank).word;
  for (int round = 0; round < kRoundsWithoutPause; ++round)
    if (published.load() == word_) return true;
  const bool is_same = wait_long(published) == word_;
  is_same_ = is_same_ && is_same;
  return is_same;
}

std::uint64_t Slots::Exchange::wait_long(SharedNumber& published) {
  const Span span(SpanKind::waiting, "wait for peers");
  std::optional<SharedNumber::Sleeper> sleeper;
  std::uint64_t seen = published.load();
  for (; !is_of(seen, slots_.sequence_); seen = published.load()) {
    slots_.alarm().throw_if_raised();
    if (backoff_.wait_on_core()) continue;
    wait_.look();
    if (sleeper) {
      sleeper->sleep_while(seen);
    } else {
      sleeper.emplace(published);
      std::this_thread::yield();  // for as long as the announcement may need to be seen
    }
  }
  return seen;
}

void Slots::Exchange::finish() {
  for (int rank = 0; rank < slots_.size(); ++rank)
    if (rank != slots_.rank()) await(rank);
  slots_.group_.leave();
  if (!is_same_) slots_.report_disagreement();
}

void Slots::report_disagreement() {
  std::vector<Call> calls;
  for (int rank = 0; rank < size(); ++rank) calls.push_back(header(rank).call);
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
