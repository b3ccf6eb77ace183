#include "runtime/communicators/threads.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "runtime/communicators/slot_communicator.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

/// What all groups of a job share.
struct ThreadJob {
  explicit ThreadJob(int ranks) : statuses(static_cast<std::size_t>(ranks)) {
    for (int rank = 0; rank < ranks; ++rank) statuses[static_cast<std::size_t>(rank)].introduce(rank);
  }

  /// What a rank sees of it.
  Lookout lookout(int rank) {
    Lookout seen;
    seen.own = static_cast<std::size_t>(rank);
    seen.alarm = &alarm;
    for (RankStatus& status : statuses) seen.node.push_back(&status);
    seen.hosts.assign(statuses.size(), host_name());
    return seen;
  }

  Alarm alarm;
  std::vector<RankStatus> statuses;
};

/// The memory that the ranks of one group share; lives until the last of them has let go.
class ThreadGroup {
 public:
  ThreadGroup(std::vector<int> names, std::size_t slot_bytes)
      : names_(std::move(names)),
        slot_bytes_(slot_bytes),
        segment_bytes_(Slots::segment_bytes(slot_bytes, size())),
        memory_(std::make_unique_for_overwrite<std::byte[]>(segment_bytes_ * names_.size())) {
    for (std::byte* segment : segments()) Slots::prepare(segment, slot_bytes_, size());
  }

  int size() const { return static_cast<int>(names_.size()); }
  Slots slots(int rank, std::shared_ptr<Watch> watch, std::uint64_t id) {
    return {segments(), rank, slot_bytes_, WatchedGroup(std::move(watch), id, names_)};
  }

  /// The group that `members` form by the `split`-th split: made by the first of them that asks, forgotten
  /// when all have it.
  std::shared_ptr<ThreadGroup> child(int split, int color, const std::vector<int>& members) {
    const std::lock_guard lock(mutex_);
    Child& child = children_[{split, color}];
    if (!child.group) child.group = std::make_shared<ThreadGroup>(names_of(members), slot_bytes_);
    auto group = child.group;
    if (++child.taken == members.size()) children_.erase({split, color});
    return group;
  }

 private:
  struct Child {
    std::shared_ptr<ThreadGroup> group;
    std::size_t taken = 0;
  };

  std::vector<int> names_of(const std::vector<int>& members) const {
    std::vector<int> names;
    for (const int member : members) names.push_back(names_[static_cast<std::size_t>(member)]);
    return names;
  }

  std::vector<std::byte*> segments() {
    std::vector<std::byte*> all;
    for (std::size_t r = 0; r < names_.size(); ++r) all.push_back(memory_.get() + r * segment_bytes_);
    return all;
  }

  std::vector<int> names_;
  std::size_t slot_bytes_;
  std::size_t segment_bytes_;
  std::unique_ptr<std::byte[]> memory_;
  std::mutex mutex_;
  std::map<std::pair<int, int>, Child> children_;
};

struct SplitChoice {
  int color, key;
};

/// The ranks of `slots` that chose the same color as this one, in the order of their new ranks. Collective.
std::vector<int> members_of_split(Slots& slots, const SplitChoice& mine) {
  std::memcpy(slots.outgoing(), &mine, sizeof mine);
  slots.exchange({.operation = Operation::split});
  std::vector<std::pair<int, int>> ordered;  // key, rank
  for (int rank = 0; rank < slots.size(); ++rank) {
    SplitChoice choice;
    std::memcpy(&choice, slots.incoming(rank), sizeof choice);
    if (choice.color == mine.color) ordered.emplace_back(choice.key, rank);
  }
  std::sort(ordered.begin(), ordered.end());
  std::vector<int> members;
  for (const auto& [key, rank] : ordered) members.push_back(rank);
  return members;
}

class ThreadCommunicator final : public SlotCommunicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank, std::shared_ptr<Watch> watch,
                     std::uint64_t id)
      : SlotCommunicator(group->slots(rank, std::move(watch), id)), group_(std::move(group)) {}
  // A rank that unwinds is about to say why: its peers shall hear that.
  ~ThreadCommunicator() override {
    if (std::uncaught_exceptions() == 0) slots().leave();
  }

  std::string transport() const override { return "threads"; }

 private:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    const std::vector<int> members = members_of_split(slots(), {color, key});
    const auto own = std::find(members.begin(), members.end(), rank());
    return std::make_unique<ThreadCommunicator>(
        group_->child(splits_++, color, members), static_cast<int>(own - members.begin()),
        slots().group().shared_watch(), slots().group().next_child(color));
  }

  std::shared_ptr<ThreadGroup> group_;
  int splits_ = 0;
};

/// What the ranks threw, by rank.
class Failures {
 public:
  explicit Failures(int ranks) : own_(static_cast<std::size_t>(ranks)), peers_(own_) {}

  /// Runs `body` for a rank; when it throws, its peers are told.
  void watch(Communicator& world, const std::function<void(Communicator&)>& body) {
    const auto rank = static_cast<std::size_t>(world.rank());
    try {
      body(world);
    } catch (const PeerError& error) {
      peers_[rank] = std::current_exception();
      world.abandon(error.what());
    } catch (const std::exception& error) {
      own_[rank] = std::current_exception();
      world.abandon(error.what());
    } catch (...) {
      own_[rank] = std::current_exception();
      world.abandon("an exception of unknown type");
    }
  }

  void rethrow_first() const {
    for (const auto& errors : {own_, peers_}) {
      for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
      }
    }
  }

 private:
  std::vector<std::exception_ptr> own_, peers_;
};

}  // namespace

void run_on_threads(int ranks, std::size_t slot_bytes, const std::function<void(Communicator& world)>& body) {
  check(ranks >= 1, "run_on_threads: at least one rank");
  std::vector<int> names(static_cast<std::size_t>(ranks));
  std::iota(names.begin(), names.end(), 0);
  const auto group = std::make_shared<ThreadGroup>(names, slot_bytes);
  ThreadJob job(ranks);
  Failures failures(ranks);
  {
    std::vector<std::jthread> threads;
    try {
      for (int rank = 0; rank < ranks; ++rank) {
        threads.emplace_back([&, rank] {
          ThreadCommunicator world(group, rank, std::make_shared<Watch>(job.lookout(rank)), kWorldGroup);
          failures.watch(world, body);
        });
      }
    } catch (const std::exception& error) {  // no more threads: those that run must not wait for the rest
      job.alarm.raise(error.what());
      throw;
    }
  }
  failures.rethrow_first();
}

void run_on_threads(int ranks, const std::function<void(Communicator& world)>& body) {
  run_on_threads(ranks, kDefaultSlotBytes, body);
}

}  // namespace lamina
