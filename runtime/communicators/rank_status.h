// Where a rank is, in memory that the ranks of its node share: written by the rank at every collective, read
// by others when they have waited too long. Writing costs a few stores to memory that nobody else reads
// meanwhile.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "runtime/communicators/call.h"

namespace lamina {

constexpr std::size_t kWatchedGroups = 8;  ///< that a rank can be in at once, besides groups of one
constexpr std::size_t kCallsKept = 4;      ///< per group
constexpr std::int64_t kNoStep = -1;
constexpr std::uint64_t kWorldGroup = 1;  ///< the id of the group of all ranks, which each rank opens first
constexpr std::size_t kWorldPlace = 0;

/// A wait for the peers of a group; the root of a broadcast is a rank of the world here.
struct CallReport {
  Call call;
  std::int64_t step = kNoStep;
};

/// One group as one of its ranks sees it. All its ranks know it by the same id.
struct GroupReport {
  std::uint64_t id = 0;
  std::uint64_t waits = 0;  ///< that the rank has begun; the ranks of a group begin the same ones
  std::array<char, 24> name{};
  CallReport last;
};

/// A copy of a RankStatus, fit to travel.
struct RankReport {
  std::int32_t rank = 0, pid = 0;
  char process = ' ';  ///< its state as /proc has it: T stopped, D waits for a disk, … ; 0 gone, ' ' unknown
  bool is_waiting = false;
  std::uint32_t latest = 0;  ///< the group in which it called last
  std::array<GroupReport, kWatchedGroups> groups{};

  const GroupReport& latest_group() const { return groups[latest % kWatchedGroups]; }
  /// Its part in the group, or null.
  const GroupReport* find(std::uint64_t group) const;
};

class RankStatus {
 public:
  /// Once, by the rank itself, before others look.
  void introduce(int rank);

  /// A place for a group; its id is not 0. InternalError when there is none left.
  std::size_t open(std::uint64_t id);
  void rename(std::size_t place, const std::string& name);
  void close(std::size_t place);

  int rank() const { return rank_.load(std::memory_order_relaxed); }
  void note_step(std::int64_t step) { step_.store(step, std::memory_order_relaxed); }

  /// The rank begins to wait for the peers of a group.
  void enter(std::size_t place, const Call& call, int root) {
    Group& group = groups_[place];
    const std::uint64_t wait = group.waits.load(std::memory_order_relaxed) + 1;
    Record& record = group.records[wait % kCallsKept];
    record.what.store(packed(call, root), std::memory_order_relaxed);
    record.count.store(call.count, std::memory_order_relaxed);
    record.step.store(step_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    group.waits.store(wait, std::memory_order_release);
    latest_.store(static_cast<std::uint32_t>(place), std::memory_order_relaxed);
    is_waiting_.store(true, std::memory_order_release);
  }
  /// All have come, or the rank waits no longer.
  void leave() { is_waiting_.store(false, std::memory_order_release); }

  RankReport read() const;

 private:
  struct Record {
    std::atomic<std::uint64_t> what, count;
    std::atomic<std::int64_t> step;
  };
  struct Group {
    std::atomic<std::uint64_t> id, waits;
    std::array<std::atomic<std::uint64_t>, 3> name;
    std::array<Record, kCallsKept> records;
  };

  static std::uint64_t packed(const Call& call, int root) {
    return static_cast<std::uint64_t>(call.operation) | static_cast<std::uint64_t>(call.type) << 8 |
           static_cast<std::uint64_t>(call.reduction) << 16 | static_cast<std::uint64_t>(root) << 32;
  }
  static Call unpacked(std::uint64_t what, std::uint64_t count);
  static GroupReport read(const Group& group);

  std::atomic<std::int32_t> rank_{0}, pid_{0};
  std::atomic<std::int64_t> step_{kNoStep};
  std::atomic<std::uint32_t> latest_{0};
  std::atomic<bool> is_waiting_{false};
  std::array<Group, kWatchedGroups> groups_{};
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "processes share it");

}  // namespace lamina
