#include "runtime/communicators/crash_notice.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstring>

#include "runtime/host_name.h"

namespace lamina {
namespace {

constexpr std::array kSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

/// A handler of signals can reach nothing else: set by the one CrashNotice of the process.
struct Crash {
  std::atomic<const RankStatus*> status{nullptr};
  std::array<char, 256> host{};
  std::array<struct sigaction, kSignals.size()> former{};
};
Crash crash;

/// Text built without memory from the heap, whose lock the crashed code may hold.
class Line {
 public:
  Line& operator<<(const char* text) {
    const std::size_t length = std::min(std::strlen(text), text_.size() - used_);
    std::memcpy(text_.data() + used_, text, length);
    used_ += length;
    return *this;
  }
  Line& operator<<(std::int64_t number) {
    std::array<char, 24> digits{};
    std::to_chars(digits.data(), digits.data() + digits.size() - 1, number);
    return *this << digits.data();
  }
  /// What cannot be written is lost: there is nobody to tell.
  void print() const {
    if (write(STDERR_FILENO, text_.data(), used_) < 0) return;
  }

 private:
  std::array<char, 512> text_{};
  std::size_t used_ = 0;
};

const char* word_for(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV";
    case SIGBUS:
      return "SIGBUS";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    default:
      return "SIGABRT";
  }
}

void print_notice(const RankStatus& status, int signal) {
  const RankReport report = status.read();
  const GroupReport& group = report.latest_group();
  Line line;
  line << "lamina: rank " << report.rank << " on " << crash.host.data() << " crashed with "
       << word_for(signal);
  if (group.id != 0 && group.waits > 0) {
    line << (report.is_waiting ? " in " : " after ") << name_of(group.last.call.operation) << " ("
         << group.name.data();
    if (group.last.step != kNoStep) line << ", step " << group.last.step;
    line << ")";
  }
  (line << "\n").print();
}

void restore(int signal) {
  const auto place = std::find(kSignals.begin(), kSignals.end(), signal) - kSignals.begin();
  sigaction(signal, &crash.former[static_cast<std::size_t>(place)], nullptr);
}

void on_crash(int signal) {
  if (const RankStatus* status = crash.status.exchange(nullptr)) print_notice(*status, signal);
  restore(signal);
  raise(signal);  // comes when this returns
}

}  // namespace

CrashNotice::CrashNotice(const RankStatus& status) {
  host_name().copy(crash.host.data(), crash.host.size() - 1);
  crash.status.store(&status);
  struct sigaction action {};
  action.sa_handler = on_crash;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i)
    check(sigaction(kSignals[i], &action, &crash.former[i]) == 0, "sigaction of a crash");
}

CrashNotice::~CrashNotice() {
  crash.status.store(nullptr);
  for (const int signal : kSignals) restore(signal);
}

}  // namespace lamina
