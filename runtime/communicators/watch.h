// A rank's watch over its waits: no wait for peers lasts longer than the deadline, and the rank that finds
// one too long says which peer is to blame.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/communicators/alarm.h"
#include "runtime/communicators/rank_status.h"
#include "runtime/communicators/verdict.h"

namespace lamina {

/// What ranks on other hosts say of themselves. Used by one thread, but for latest().
class RemoteRanks {
 public:
  virtual ~RemoteRanks() = default;
  using Reports = std::vector<RankReport>;
  /// Tells all ranks on other hosts about those on this one, and asks them to answer in kind.
  virtual void ask(const Reports& own) = 0;
  /// Takes what has come; questions are answered with `own()`.
  virtual void listen(const std::function<Reports()>& own) = 0;
  /// The last word about a rank, not older than `since`. From any thread.
  virtual std::optional<RankReport> latest(int rank, std::chrono::steady_clock::time_point since) const = 0;
};

constexpr std::int32_t kNobody = -1;

/// What a Watch sees; all of it outlives the Watch.
struct Lookout {
  std::vector<RankStatus*> node;   ///< the ranks that share memory
  std::size_t own = 0;             ///< this rank's place among them
  std::vector<std::string> hosts;  ///< by rank in the world
  Alarm* alarm = nullptr;
  RemoteRanks* remote = nullptr;               ///< null where all ranks share memory
  std::atomic<std::int32_t>* asker = nullptr;  ///< the place of the rank that asks `remote`; kNobody; shared
  std::function<void()> idle;                  ///< called now and then in long waits; may be empty
};

/// One per rank and job, shared by all its groups.
class Watch {
 public:
  explicit Watch(Lookout lookout) : lookout_(std::move(lookout)) {}

  RankStatus& status() { return *lookout_.node[lookout_.own]; }
  Alarm& alarm() { return *lookout_.alarm; }
  std::size_t ranks_on_node() const { return lookout_.node.size(); }

  /// 0: none.
  void set_deadline(std::chrono::milliseconds limit) { limit_.store(limit); }
  std::chrono::milliseconds deadline() const { return limit_.load(); }

  /// Raises the alarm with `text` and throws it as PeerError. A peer that went astray may know better why, so
  /// it is not to be said first.
  [[noreturn]] void give_up(const std::string& text) { give_up(text, false); }
  /// The same with what can be found out now about who is late, which nobody else will say: one rank says it
  /// first.
  [[noreturn]] void give_up_on_who_is_late();
  /// What give_up_on_who_is_late() says. From any thread.
  Verdict who_is_late() const;

  /// How long this rank has been waiting; 0 when it does not, or not for long. From any thread.
  std::chrono::nanoseconds waited() const;

 private:
  friend class LongWait;
  using Clock = std::chrono::steady_clock;
  static_assert(std::atomic<std::chrono::milliseconds>::is_always_lock_free);

  [[noreturn]] void give_up(const std::string& text, bool may_speak_first);
  std::vector<RankReport> node_reports() const;
  bool take_over_asking();
  bool speaks_first(std::span<const int> blamed) const;

  Lookout lookout_;
  std::atomic<std::chrono::milliseconds> limit_{std::chrono::milliseconds(0)};
  std::atomic<Clock::time_point> since_{Clock::time_point{}};
};

/// One wait for peers; costs nothing until it becomes long.
class LongWait {
 public:
  explicit LongWait(Watch& watch) : watch_(watch) {}
  ~LongWait() {
    if (since_ != Watch::Clock::time_point{}) end();
  }
  LongWait(const LongWait&) = delete;
  LongWait& operator=(const LongWait&) = delete;

  /// The wait is long: time for other things. PeerError when it is too long.
  void look();
  /// The wait is long from the beginning.
  void start();

 private:
  void end();
  void ask();

  Watch& watch_;
  Watch::Clock::time_point since_{};
  bool has_tried_to_ask_ = false, asks_ = false;
};

/// A rank's membership in one group: what it tells the others about its calls there.
class WatchedGroup {
 public:
  /// `names`: the group's ranks in the world. A group of one is never waited for.
  WatchedGroup(std::shared_ptr<Watch> watch, std::uint64_t id, std::vector<int> names);

  Watch& watch() const { return *watch_; }
  const std::shared_ptr<Watch>& shared_watch() const { return watch_; }
  const std::vector<int>& names() const { return names_; }
  void rename(const std::string& name) {
    if (names_.size() > 1) watch_->status().rename(place_, name);
  }

  /// The rank begins to wait for the group.
  void enter(const Call& call) {
    if (names_.size() == 1) return;
    watch_->status().enter(place_, call, names_[static_cast<std::size_t>(call.root)]);
  }
  void leave() {
    if (names_.size() > 1) watch_->status().leave();
  }
  /// The rank is in the group no longer. The world's place stays, for the end of the job.
  void close() {
    if (names_.size() > 1 && id_ != kWorldGroup) watch_->status().close(place_);
  }
  /// The id of a group split from this one now, the same on all its ranks.
  std::uint64_t next_child(int color);

 private:
  std::shared_ptr<Watch> watch_;
  std::uint64_t id_;
  std::vector<int> names_;
  std::size_t place_ = 0;
  std::uint64_t children_ = 0;
};

/// A call of a library that waits for the group by itself: it cannot look, but a thread beside it can.
class BlindWait {
 public:
  BlindWait(WatchedGroup& group, const Call& call) : group_(group), wait_(group.watch()) {
    group_.enter(call);
    wait_.start();
  }
  ~BlindWait() { group_.leave(); }
  BlindWait(const BlindWait&) = delete;
  BlindWait& operator=(const BlindWait&) = delete;

 private:
  WatchedGroup& group_;
  LongWait wait_;
};

}  // namespace lamina
