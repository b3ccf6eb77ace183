// The exchange under collectives of ranks that share memory, threads or processes: everyone publishes a slot,
// then everyone reads its peers' slots.
//
// A rank has two slots, used in turn, each with a word that tells which exchange it is of. Exchange k: fill
// slot k mod 2, store the word of k (release), wait until every peer's slot k mod 2 shows the word of k
// (acquire), read. No further barrier: before a rank fills the slot of exchange k, which peers read last in
// exchange k - 2, it has seen every peer's word of k - 1, and a peer stores that only after it has done
// reading k - 2. This holds because every rank waits for every peer in every exchange, whatever the
// collective.
//
// The word is the exchange's number and a fingerprint of the call, so that ranks see at no cost whether they
// all called the same. What differs then, the calls beside the words tell.
//
// Time goes where memory moves between cores. A rank's word is one store to one cache line, all that waiting
// peers read; whatever else an exchange writes for others stays with its writer until someone needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/communicators/backoff.h"
#include "runtime/communicators/call.h"
#include "runtime/communicators/farewell.h"
#include "runtime/communicators/watch.h"

namespace lamina {

constexpr std::size_t kDefaultSlotBytes = std::size_t{256} * 1024;

class SharedNumber;

class Slots {
 public:
  /// Shared memory that each rank of a group of `ranks` gives: room for two slots of `slot_bytes` or a little
  /// more. Its start modulo 128 is the same in all processes.
  static std::size_t segment_bytes(std::size_t slot_bytes, int ranks);
  /// Once, by the segment's owner, before any rank makes its Slots.
  static void prepare(std::byte* segment, std::size_t slot_bytes, int ranks);

  /// `segments`: by rank.
  Slots(std::vector<std::byte*> segments, int rank, std::size_t slot_bytes, WatchedGroup group);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(segments_.size()); }
  /// This rank's number for people: its rank in the world.
  int name() const { return group_.names()[static_cast<std::size_t>(rank_)]; }
  WatchedGroup& group() { return group_; }
  const WatchedGroup& group() const { return group_; }
  Alarm& alarm() { return group_.watch().alarm(); }

  /// Bytes in a slot, a multiple of 128; at least 64 for each rank.
  std::size_t capacity() const { return capacity_; }
  /// This rank's slot of the coming exchange, to be filled. Aligned to 128.
  std::byte* outgoing();
  /// Publishes outgoing() and waits for all peers. PeerError, with the alarm raised, when a peer made another
  /// call or did not come by the deadline; PeerError when the alarm is raised.
  void exchange(const Call& call) { Exchange(*this, call).finish(); }
  /// What `rank` published in the latest exchange. Valid until the next.
  const std::byte* incoming(int rank) const;

  /// exchange() in steps, for who can use a peer's slot before the others have come.
  class Exchange {
   public:
    /// Publishes outgoing().
    Exchange(Slots& slots, const Call& call);
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    /// Waits for `rank`. Whether it made the same call: only then its slot can be used.
    bool await(int rank);
    /// Waits for those that no await() was for. Errors as exchange().
    void finish();

   private:
    std::uint64_t wait_long(SharedNumber& published);

    Slots& slots_;
    const std::uint64_t word_;
    bool is_same_ = true;
    Backoff backoff_;
    LongWait wait_;
  };

  /// Tells the peers that this rank will call nothing more, unless the alarm is raised.
  void leave() noexcept;
  /// leave(), and waits for the peers to do the same. False on all ranks where one does not: its memory may
  /// be in use.
  bool leave_together() noexcept;

 private:
  struct Header;
  Farewell& farewell();
  /// Of the exchange `sequence`: a Header, then what it carries.
  std::byte* slot(int rank, std::uint32_t sequence) const;
  Header& header(int rank) const;
  std::uint64_t start(const Call& call);
  std::uint64_t publish(const Call& call);
  [[noreturn]] void report_disagreement();

  std::vector<std::byte*> segments_;
  int rank_;
  std::size_t capacity_;
  WatchedGroup group_;
  std::chrono::nanoseconds spin_;
  std::uint32_t sequence_ = 0;  ///< of the latest exchange; compared for equality only, so it may wrap
};

}  // namespace lamina
