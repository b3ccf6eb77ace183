#include "runtime/communicators/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lamina {
namespace {

constexpr std::size_t kPlacesNamed = 4;

bool is_frozen(const RankReport& report) {
  return std::string("TtZXx").find(report.process) != std::string::npos || report.process == '\0';
}

std::string process_of(const RankReport& report) {
  const auto state = [&]() -> const char* {
    switch (report.process) {
      case 'T':
      case 't':
        return ", stopped";
      case 'D':
        return ", waiting for a disk or a network file system";
      case 'R':
        return ", running";
      case 'S':
        return ", asleep";
      case 'Z':
      case 'X':
      case 'x':
      case '\0':
        return ", ended";
      default:
        return "";
    }
  };
  return report.process == ' ' ? "" : fmt::format(" (process {}{})", report.pid, state());
}

// "all_gather of 512 float32 (model axis, step 41)"
std::string place_in(const GroupReport& group) {
  const std::string step = group.last.step == kNoStep ? "" : fmt::format(", step {}", group.last.step);
  return fmt::format("{} ({}{})", describe(group.last.call), group.name.data(), step);
}

std::string seconds_of(std::chrono::milliseconds limit) {
  return fmt::format("{:g} s", static_cast<double>(limit.count()) / 1000);
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) text += (i + 1 == parts.size() ? " and " : ", ") + parts[i];
  return text;
}

class Search {
 public:
  explicit Search(const Situation& situation) : situation_(situation) {}

  Verdict run() {
    for (int waiting = situation_.me;;) {
      visited_.insert(waiting);
      const RankReport& waits = *report(waiting);
      const std::vector<int> missing = missing_for(waits);
      if (const auto guilty = first(missing, [&](int rank) { return is_frozen(*report(rank)); }))
        return absent(*guilty, waits);
      if (const auto guilty = first(missing, [&](int rank) { return !report(rank)->is_waiting; }))
        return absent(*guilty, waits);
      const auto next = first(missing, [&](int rank) { return !visited_.contains(rank); });
      if (next)
        waiting = *next;
      else
        return missing.empty() ? silence(waits) : circle();
    }
  }

 private:
  const std::optional<RankReport>& report(int rank) const {
    return situation_.ranks[static_cast<std::size_t>(rank)];
  }
  const std::string& host(int rank) const { return situation_.hosts[static_cast<std::size_t>(rank)]; }
  int ranks() const { return static_cast<int>(situation_.ranks.size()); }

  template <class Condition>
  static std::optional<int> first(const std::vector<int>& among, const Condition& condition) {
    const auto found = std::find_if(among.begin(), among.end(), condition);
    return found == among.end() ? std::nullopt : std::optional(*found);
  }

  /// Those that have not come to where `waits` is, or came and can do nothing more.
  std::vector<int> missing_for(const RankReport& waits) const {
    const GroupReport& group = waits.latest_group();
    std::vector<int> missing;
    for (int rank = 0; rank < ranks(); ++rank) {
      const GroupReport* theirs = report(rank) ? report(rank)->find(group.id) : nullptr;
      if (theirs == nullptr || rank == waits.rank) continue;
      if (theirs->waits < group.waits || (theirs->waits == group.waits && is_frozen(*report(rank))))
        missing.push_back(rank);
    }
    return missing;
  }

  Verdict absent(int guilty, const RankReport& waits) const {
    const RankReport& its = *report(guilty);
    const GroupReport& latest = its.latest_group();
    const bool had_calls = latest.id != 0 && latest.waits > 0;
    std::string text = fmt::format("rank {} on {}{} did not ", guilty, host(guilty), process_of(its));
    if (its.is_waiting)
      text += fmt::format("get through {} within {}", place_in(latest), seconds_of(situation_.limit));
    else
      text += fmt::format("come to {} within {}; {}", place_in(first_missed(guilty, waits)),
                          seconds_of(situation_.limit),
                          had_calls ? "its last call was " + place_in(latest) : "it has made no call yet");
    return {text + who_waits({guilty}), {guilty}};
  }

  /// Where it should have come in the earliest step; `waits` is one of those who wait for it.
  const GroupReport& first_missed(int guilty, const RankReport& waits) const {
    const GroupReport* earliest = &waits.latest_group();
    for (const auto& other : situation_.ranks) {
      if (!other || !other->is_waiting || other->latest_group().last.step >= earliest->last.step) continue;
      const std::vector<int> missing = missing_for(*other);
      if (std::find(missing.begin(), missing.end(), guilty) != missing.end())
        earliest = &other->latest_group();
    }
    return *earliest;
  }

  Verdict silence(const RankReport& waits) const {
    std::vector<int> silent;
    for (int rank = 0; rank < ranks(); ++rank)
      if (!report(rank)) silent.push_back(rank);
    if (silent.empty()) return in_transit(waits);
    const std::string text =
        fmt::format("no word from {} within {}: stuck, or their host or the link to it is down",
                    with_hosts(silent), seconds_of(situation_.limit));
    return {text + who_waits(silent), silent};
  }

  // All have come, yet the messages have not arrived.
  Verdict in_transit(const RankReport& waits) const {
    return {
        fmt::format("all ranks came to {} but its messages did not arrive within {}: a link between their "
                    "hosts may be down",
                    place_in(waits.latest_group()), seconds_of(situation_.limit)) +
            who_waits({}),
        {}};
  }

  Verdict circle() const {
    const std::vector<int> all(visited_.begin(), visited_.end());
    return {fmt::format("ranks wait for each other for {}", seconds_of(situation_.limit)) + who_waits({}),
            all};
  }

  std::string with_hosts(const std::vector<int>& silent) const {
    std::vector<std::string> parts, hosts;
    for (const int rank : silent)
      if (std::find(hosts.begin(), hosts.end(), host(rank)) == hosts.end()) hosts.push_back(host(rank));
    for (const std::string& name : hosts) {
      std::vector<int> there;
      for (const int rank : silent)
        if (host(rank) == name) there.push_back(rank);
      parts.push_back(fmt::format("{} on {}", list_of_ranks(there), name));
    }
    return joined(parts);
  }

  /// "; ranks 0 and 1 wait in barrier (world, step 3)"
  std::string who_waits(const std::vector<int>& blamed) const {
    std::vector<std::pair<std::string, std::vector<int>>> places;
    for (int rank = 0; rank < ranks(); ++rank) {
      const bool is_blamed = std::find(blamed.begin(), blamed.end(), rank) != blamed.end();
      if (is_blamed || !report(rank) || !report(rank)->is_waiting) continue;
      const std::string place = place_in(report(rank)->latest_group());
      const auto known =
          std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == place; });
      if (known == places.end())
        places.emplace_back(place, std::vector{rank});
      else
        known->second.push_back(rank);
    }
    std::vector<std::string> parts;
    for (const auto& [place, there] : places) {
      if (parts.size() == kPlacesNamed) return "; " + joined(parts) + ", others elsewhere";
      parts.push_back(
          fmt::format("{} {} in {}", list_of_ranks(there), there.size() == 1 ? "waits" : "wait", place));
    }
    return parts.empty() ? "" : "; " + joined(parts);
  }

  const Situation& situation_;
  std::set<int> visited_;
};

}  // namespace

std::string list_of_ranks(const std::vector<int>& ranks) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    while (end < ranks.size() && ranks[end] == ranks[begin] + static_cast<int>(end - begin)) ++end;
    if (end - begin > 2)
      parts.push_back(fmt::format("{}-{}", ranks[begin], ranks[end - 1]));
    else
      for (std::size_t i = begin; i < end; ++i) parts.push_back(std::to_string(ranks[i]));
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + joined(parts);
}

Verdict judge(const Situation& situation) { return Search(situation).run(); }

}  // namespace lamina
