#include "runtime/communicators/rank_status.h"

#include <unistd.h>

#include <cstring>
#include <type_traits>

namespace lamina {

static_assert(std::is_trivially_copyable_v<RankReport>);

const GroupReport* RankReport::find(std::uint64_t group) const {
  for (const GroupReport& report : groups)
    if (report.id == group) return &report;
  return nullptr;
}

void RankStatus::introduce(int rank) {
  rank_.store(rank);
  pid_.store(getpid());
}

std::size_t RankStatus::open(std::uint64_t id) {
  for (std::size_t place = 0; place < kWatchedGroups; ++place) {
    Group& group = groups_[place];
    if (group.id.load() != 0) continue;
    group.waits.store(0);
    rename(place, id == kWorldGroup ? "world" : "group");
    group.id.store(id);
    return place;
  }
  check(false, "a rank cannot be in more than " + std::to_string(kWatchedGroups) + " groups at once");
  return 0;
}

void RankStatus::rename(std::size_t place, const std::string& name) {
  std::array<std::uint64_t, 3> words{};
  name.copy(reinterpret_cast<char*>(words.data()), sizeof words - 1);
  for (std::size_t i = 0; i < words.size(); ++i) groups_[place].name[i].store(words[i]);
}

void RankStatus::close(std::size_t place) {
  leave();
  groups_[place].id.store(0);
}

Call RankStatus::unpacked(std::uint64_t what, std::uint64_t count) {
  return {.operation = static_cast<Operation>(what & 0xff),
          .type = static_cast<ElementType>(what >> 8 & 0xff),
          .reduction = static_cast<Reduction>(what >> 16 & 0xff),
          .root = static_cast<std::int32_t>(what >> 32),
          .count = count};
}

GroupReport RankStatus::read(const Group& group) {
  GroupReport report;
  // A rank that moves on writes the next record; it takes several for it to come round to this one.
  do {
    report.waits = group.waits.load(std::memory_order_acquire);
    const Record& record = group.records[report.waits % kCallsKept];
    report.last = {unpacked(record.what.load(), record.count.load()), record.step.load()};
  } while (group.waits.load(std::memory_order_acquire) - report.waits >= kCallsKept - 1);
  std::array<std::uint64_t, 3> words{};
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = group.name[i].load();
  std::memcpy(report.name.data(), words.data(), sizeof words);
  report.id = group.id.load();
  return report;
}

RankReport RankStatus::read() const {
  RankReport report{.rank = rank_.load(), .pid = pid_.load()};
  report.is_waiting = is_waiting_.load(std::memory_order_acquire);
  report.latest = latest_.load();
  for (std::size_t place = 0; place < kWatchedGroups; ++place) report.groups[place] = read(groups_[place]);
  return report;
}

}  // namespace lamina
