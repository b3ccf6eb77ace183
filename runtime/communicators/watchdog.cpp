#include "runtime/communicators/watchdog.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>

#include "runtime/communicators/process.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;

constexpr auto kRound = 500ms;
constexpr int kPeerLost = static_cast<int>(ExitCode::peer_lost);

[[noreturn]] void end_process(int code, const std::string& sentence) {
  if (!sentence.empty()) say_last(sentence);
  _exit(code);
}

}  // namespace

void say_last(const std::string& sentence) {
  std::signal(SIGPIPE, SIG_IGN);  // the reader may be gone, with mpirun
  // Not through stdio: the rank that hangs may hold its lock.
  const std::string line = fmt::format("lamina: {}\n", sentence);
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;  // nobody is left to hear it
}

LastResort::LastResort(std::chrono::milliseconds limit, int code, std::string sentence)
    : thread_([this, limit, code, sentence = std::move(sentence)](const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        if (!ended_.wait_for(lock, stop, limit, [&] { return stop.stop_requested(); }))
          lamina::end_process(code, sentence);
      }) {}

Watchdog::Watchdog(int rank, Patience patience)
    : rank_(rank),
      patience_(patience),
      launcher_(launcher_of_this_process()),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Watchdog::~Watchdog() = default;

void Watchdog::watch_over(std::shared_ptr<Watch> watch) {
  const std::lock_guard lock(mutex_);
  watch_ = std::move(watch);
}

void Watchdog::look_away() {
  const std::lock_guard lock(mutex_);
  watch_.reset();
}

void Watchdog::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, stop, kRound, [&] { return stop.stop_requested(); })) {
    look_for_launcher();
    if (watch_) look();
  }
}

void Watchdog::look() {
  const auto limit = watch_->deadline();
  if (limit.count() > 0 && watch_->waited() > limit + patience_.grace) {
    const std::string sentence = watch_->who_is_late().sentence;
    if (watch_->alarm().raise(sentence.c_str())) end_process(sentence);
  }
  const auto now = std::chrono::steady_clock::now();
  if (!watch_->alarm().raised()) return;
  if (alarm_seen_ == std::chrono::steady_clock::time_point{}) alarm_seen_ = now;
  if (now - alarm_seen_ > patience_.end) end_process(watch_->alarm().text());
}

void Watchdog::look_for_launcher() const {
  if (launcher_ != 0 && has_ended(launcher_)) end_process("mpirun has ended, and with it the job");
}

void Watchdog::end_process(const std::string& sentence) const {
  lamina::end_process(kPeerLost, fmt::format("rank {} on {}: {}", rank_, host_name(), sentence));
}

}  // namespace lamina
