#include "runtime/fault_point.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <list>
#include <optional>
#include <string_view>
#include <vector>

#include "runtime/error.h"

namespace lamina {
namespace {

constexpr std::array<std::string_view, 13> kPoints{
    "step",          "forward_exchange",   "gradient_sync", "gradient",   "parameter", "checkpoint_write",
    "before_rename", "before_folder_sync", "file_open",     "file_write", "file_sync", "file_rename",
    "file_read"};

enum class Action : std::uint8_t { kill, stop, crash, hang, enospc, eio, corrupt };
constexpr std::array<std::string_view, 7> kActions{"kill",   "stop", "crash",  "hang",
                                                   "enospc", "eio",  "corrupt"};

struct Fault {
  FaultPoint point{};
  Action action{};
  std::optional<int> rank;
  int count = 1, times = 1;
  std::string once;
  std::atomic<int> passages{0};
};

[[noreturn]] void refuse(std::string_view fault, std::string_view why) {
  throw UserError(fmt::format("LAMINA_FAULTS: \"{}\" {}; runtime/fault_point.h describes it", fault, why));
}

template <std::size_t N>
std::size_t index_of(std::string_view word, const std::array<std::string_view, N>& words,
                     std::string_view fault) {
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) refuse(fault, fmt::format("has the unknown word \"{}\"", word));
  return static_cast<std::size_t>(found - words.begin());
}

int number_of(std::string_view text, std::string_view fault) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0)
    refuse(fault, fmt::format("has \"{}\" where a whole number belongs", text));
  return number;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void set(Fault& fault, std::string_view setting, std::string_view text) {
  const std::size_t sign = setting.find('=');
  if (sign == std::string_view::npos) refuse(text, fmt::format("has \"{}\" without a value", setting));
  const std::string_view key = setting.substr(0, sign), value = setting.substr(sign + 1);
  if (key == "rank")
    fault.rank = number_of(value, text);
  else if (key == "count")
    fault.count = number_of(value, text);
  else if (key == "times")
    fault.times = number_of(value, text);
  else if (key == "once")
    fault.once = value;
  else
    refuse(text, fmt::format("has the unknown key \"{}\"", key));
}

std::list<Fault> read_faults(std::string_view text) {
  std::list<Fault> faults;
  for (const std::string_view part : split(text, ';')) {
    if (part.empty()) continue;
    const auto words = split(part, ':');
    if (words.size() < 2) refuse(part, "has no action");
    Fault& fault = faults.emplace_back();
    fault.point = static_cast<FaultPoint>(index_of(words[0], kPoints, part));
    fault.action = static_cast<Action>(index_of(words[1], kActions, part));
    for (std::size_t i = 2; i < words.size(); ++i) set(fault, words[i], part);
  }
  return faults;
}

int own_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (const char* value = std::getenv(name)) return std::atoi(value);
  return 0;
}

/// What the environment of this process orders, until order_faults() puts other faults in their place.
std::list<Fault>& faults() {
  static std::list<Fault> all = [] {
    const char* text = std::getenv("LAMINA_FAULTS");
    return read_faults(text == nullptr ? "" : text);
  }();
  return all;
}

std::atomic<bool>& any_faults() {
  static std::atomic<bool> any = !faults().empty();
  return any;
}

bool has_not_happened(const Fault& fault) {
  if (fault.once.empty()) return true;
  const int marker = open(fault.once.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (marker < 0) return false;
  close(marker);
  return true;
}

bool is_due(Fault& fault) {
  static const int rank = own_rank();
  if (fault.rank && *fault.rank != rank) return false;
  const int passage = ++fault.passages;
  const bool in_turn = passage >= fault.count && (fault.times == 0 || passage - fault.count < fault.times);
  return in_turn && has_not_happened(fault);
}

[[noreturn]] void hang() {
  for (;;) pause();
}

/// The action ordered for this passage, when it is one that returns.
std::optional<Action> pass(FaultPoint point) {
  std::vector<const Fault*> due;  // all of them count this passage
  for (Fault& fault : faults())
    if (fault.point == point && is_due(fault)) due.push_back(&fault);
  for (const Fault* fault : due) {
    switch (fault->action) {
      case Action::kill:
        kill(getpid(), SIGKILL);
        hang();
      case Action::crash:
        std::signal(SIGSEGV, SIG_DFL);
        kill(getpid(), SIGSEGV);
        hang();
      case Action::stop:
        kill(getpid(), SIGSTOP);
        break;
      case Action::hang:
        hang();
      default:
        return fault->action;
    }
  }
  return std::nullopt;
}

std::optional<Action> pass_if_any(FaultPoint point) {
  return any_faults().load(std::memory_order_relaxed) ? pass(point) : std::nullopt;
}

}  // namespace

bool faults_are_set() { return any_faults(); }

void order_faults(const std::string& text) {
  faults() = read_faults(text);
  any_faults() = !faults().empty();
}

void fault_point(FaultPoint point) { static_cast<void>(pass_if_any(point)); }

int injected_error(FaultPoint point) {
  const auto action = pass_if_any(point);
  if (action == Action::enospc) return ENOSPC;
  return action == Action::eio ? EIO : 0;
}

bool injected_corruption(FaultPoint point) { return pass_if_any(point) == Action::corrupt; }

}  // namespace lamina
