#include "launch/supervisor/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "runtime/error.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

void point_to_null(int descriptor, int mode) {
  const int null = open("/dev/null", mode);
  if (null < 0 || dup2(null, descriptor) < 0) _exit(127);
  close(null);
}

void unblock_all_signals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// In the child. Writes errno to `complaints` where the program cannot be started.
[[noreturn]] void become(const std::vector<std::string>& command, const Process::Options& options,
                         pid_t parent, int complaints) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  setpgid(0, 0);
  unblock_all_signals();
  std::signal(SIGPIPE, SIG_DFL);
  point_to_null(STDIN_FILENO, O_RDONLY);
  if (options.silent || options.speaks_only_of_errors) point_to_null(STDOUT_FILENO, O_WRONLY);
  if (options.silent) point_to_null(STDERR_FILENO, O_WRONLY);
  for (const std::string& variable : options.environment) putenv(const_cast<char*>(variable.c_str()));

  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  const int error = errno;
  _exit(write(complaints, &error, sizeof error) == sizeof error ? 127 : 126);
}

}  // namespace

Process::Process(const std::vector<std::string>& command, const Options& options) {
  std::array<int, 2> complaints{};
  check(pipe2(complaints.data(), O_CLOEXEC) == 0, "a pipe cannot be made");
  const pid_t parent = getpid();
  id_ = fork();
  if (id_ == 0) become(command, options, parent, complaints[1]);
  close(complaints[1]);
  int error = id_ < 0 ? errno : 0;
  if (id_ > 0 && read(complaints[0], &error, sizeof error) > 0) poll_for(10s);
  close(complaints[0]);
  if (error != 0)
    throw UserError(fmt::format("{} cannot be started: {}", command.front(), std::strerror(error)));
}

Process::Process(Process&& other) noexcept : id_(std::exchange(other.id_, -1)), status_(other.status_) {}

Process::~Process() {
  if (id_ <= 0 || poll()) return;
  kill(-id_, SIGKILL);
  poll_for(10s);
}

std::optional<int> Process::poll() {
  int status = 0;
  if (!status_ && waitpid(id_, &status, WNOHANG) == id_) status_ = status;
  return status_;
}

std::optional<int> Process::poll_for(std::chrono::milliseconds limit) {
  for (const auto end = Clock::now() + limit; !poll() && Clock::now() < end;)
    std::this_thread::sleep_for(10ms);
  return status_;
}

void Process::signal(int signal) const {
  if (!status_) kill(id_, signal);
}

int Process::end(std::chrono::milliseconds patience) {
  signal(SIGTERM);
  if (const auto status = poll_for(patience)) return *status;
  signal(SIGKILL);
  const auto status = poll_for(10s);
  check(status.has_value(), "a process outlived SIGKILL");
  return *status;
}

Signals::Signals() {
  std::signal(SIGPIPE, SIG_IGN);  // whoever read the output may go; the run stays
  sigemptyset(&taken_);
  sigaddset(&taken_, SIGCHLD);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&taken_, signal);
  }
  check(sigprocmask(SIG_BLOCK, &taken_, &before_) == 0, "signals cannot be blocked");
}

Signals::~Signals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

std::optional<int> Signals::wait(std::chrono::milliseconds limit) const {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
  const timespec time{seconds.count(), std::chrono::nanoseconds(limit - seconds).count()};
  const int signal = sigtimedwait(&taken_, nullptr, &time);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

std::string name_of_signal(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("SIG{}", name);
}

}  // namespace lamina
