// Child processes and signals of the supervisor. It has one thread, and takes signals where it waits for
// them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace lamina {

/// A child in a process group of its own, so that ^C at the terminal does not reach it. It has no standard
/// input, and gets SIGTERM when this process dies.
class Process {
 public:
  struct Options {
    std::vector<std::string> environment;  ///< "NAME=VALUE", beside what this process has
    bool silent = false;                   ///< its output is thrown away
    bool speaks_only_of_errors = false;    ///< its standard output is thrown away
  };
  /// Throws UserError when the program cannot be started.
  explicit Process(const std::vector<std::string>& command, const Options& options);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  /// Kills it, and what else is in its group, if it still runs.
  ~Process();

  pid_t id() const { return id_; }
  /// Its status as waitpid() has it, once it has ended.
  std::optional<int> poll();
  void signal(int signal) const;
  /// SIGTERM, and SIGKILL when it still runs after `patience`. Returns its status.
  int end(std::chrono::milliseconds patience);

 private:
  std::optional<int> poll_for(std::chrono::milliseconds limit);

  pid_t id_ = -1;
  std::optional<int> status_;
};

/// Keeps the signals that a supervisor acts on from interrupting it: SIGINT, SIGTERM, SIGHUP and SIGUSR1
/// (where they are not ignored already), and SIGCHLD.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// The next signal, or none within `limit`.
  std::optional<int> wait(std::chrono::milliseconds limit) const;

 private:
  sigset_t taken_{}, before_{};
};

/// "SIGKILL"
std::string name_of_signal(int signal);

}  // namespace lamina
