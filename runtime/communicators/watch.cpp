#include "runtime/communicators/watch.h"

#include <algorithm>
#include <thread>

#include "runtime/communicators/process.h"

namespace lamina {
namespace {

/// A rank that does not ask the other hosts leaves the verdict to the one beside it that does.
constexpr std::chrono::milliseconds kAskersLead{1000};
constexpr int kTriesForText = 1000;

// splitmix64
std::uint64_t mixed(std::uint64_t bits) {
  bits += 0x9e3779b97f4a7c15;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
  return bits ^ bits >> 31;
}

}  // namespace

std::vector<RankReport> Watch::node_reports() const {
  std::vector<RankReport> reports;
  for (const RankStatus* status : lookout_.node) reports.push_back(status->read());
  const std::int32_t own = reports[lookout_.own].pid;
  for (RankReport& report : reports)
    if (report.pid != own) report.process = process_state(report.pid);
  return reports;
}

std::chrono::nanoseconds Watch::waited() const {
  const Clock::time_point since = since_.load();
  return since == Clock::time_point{} ? std::chrono::nanoseconds(0) : Clock::now() - since;
}

Verdict Watch::who_is_late() const {
  Situation situation{.limit = deadline(), .hosts = lookout_.hosts};
  situation.ranks.resize(lookout_.hosts.size());
  if (lookout_.remote != nullptr) {
    for (std::size_t rank = 0; rank < situation.ranks.size(); ++rank)
      situation.ranks[rank] = lookout_.remote->latest(static_cast<int>(rank), since_.load());
  }
  const std::vector<RankReport> here = node_reports();
  situation.me = here[lookout_.own].rank;
  for (const RankReport& report : here) situation.ranks[static_cast<std::size_t>(report.rank)] = report;
  return judge(situation);
}

void Watch::give_up_on_who_is_late() {
  const Verdict verdict = who_is_late();
  give_up(verdict.sentence, speaks_first(verdict.blamed));
}

void Watch::give_up(const std::string& text, bool may_speak_first) {
  const bool is_first = alarm().raise(text.c_str());
  // Another rank may still be writing its text; not for long, unless it is stopped.
  for (int tries = 0; tries < kTriesForText && !alarm().raised(); ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  throw PeerError(alarm().raised() ? alarm().text() : text, is_first && may_speak_first);
}

// Of several hosts, the one with the lowest rank that nobody blames.
bool Watch::speaks_first(std::span<const int> blamed) const {
  for (int rank = 0; rank < static_cast<int>(lookout_.hosts.size()); ++rank) {
    if (std::find(blamed.begin(), blamed.end(), rank) != blamed.end()) continue;
    return std::any_of(lookout_.node.begin(), lookout_.node.end(),
                       [&](const RankStatus* status) { return status->rank() == rank; });
  }
  return true;
}

bool Watch::take_over_asking() {
  std::int32_t nobody = kNobody;
  return lookout_.asker->compare_exchange_strong(nobody, static_cast<std::int32_t>(lookout_.own));
}

void LongWait::start() {
  since_ = Watch::Clock::now();
  watch_.since_.store(since_);
}

void LongWait::end() {
  watch_.since_.store({});
  if (asks_) watch_.lookout_.asker->store(kNobody);
}

void LongWait::look() {
  if (since_ == Watch::Clock::time_point{}) start();
  const Lookout& lookout = watch_.lookout_;
  if (lookout.idle) lookout.idle();
  if (lookout.remote != nullptr) lookout.remote->listen([this] { return watch_.node_reports(); });
  const std::chrono::milliseconds limit = watch_.deadline();
  if (limit.count() == 0) return;
  const auto waited = Watch::Clock::now() - since_;
  if (lookout.remote != nullptr && !has_tried_to_ask_ && waited > limit / 2) ask();
  const bool leaves_it_to_another = lookout.remote != nullptr && !asks_;
  if (waited > (leaves_it_to_another ? limit + kAskersLead : limit)) watch_.give_up_on_who_is_late();
}

void LongWait::ask() {
  has_tried_to_ask_ = true;
  asks_ = watch_.take_over_asking();
  if (asks_) watch_.lookout_.remote->ask(watch_.node_reports());
}

WatchedGroup::WatchedGroup(std::shared_ptr<Watch> watch, std::uint64_t id, std::vector<int> names)
    : watch_(std::move(watch)), id_(id), names_(std::move(names)) {
  if (names_.size() > 1) place_ = watch_->status().open(id_);
}

std::uint64_t WatchedGroup::next_child(int color) {
  return mixed(mixed(mixed(id_) + ++children_) + static_cast<std::uint64_t>(color));
}

}  // namespace lamina
