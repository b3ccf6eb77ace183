#include "launch/supervisor/watch.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <optional>

#include "launch/supervisor/job_processes.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kTick = 500ms;
constexpr auto kFirstRankTick = 100ms;  // no rank ends sooner than that
constexpr auto kAskAgain = 5s;          // mpirun drops a signal that comes before its ranks run
constexpr auto kMpirunCleans = 3s;

constexpr int kMpirunRefused = 1;  // a host that is lost before its ranks run gives another code
constexpr int kPreempted = static_cast<int>(ExitCode::preempted_and_saved);
constexpr int kLost = static_cast<int>(ExitCode::peer_lost);

/// Whether mpirun or a rank died of SIGUSR1: it came before they could listen, and so before any step.
bool was_too_early(int status) {
  return WIFSIGNALED(status) ? WTERMSIG(status) == SIGUSR1 : WEXITSTATUS(status) == 128 + SIGUSR1;
}

class Watch {
 public:
  Watch(Process& mpirun, const Signals& signals, const WatchLimits& limits, const std::string& job)
      : mpirun_(mpirun), signals_(signals), limits_(limits), job_(job) {}

  JobEnd run() {
    for (;;) {
      if (const auto status = mpirun_.poll()) return end_by_itself(*status);
      const auto signal = signals_.wait(waits_for_first_rank() ? kFirstRankTick : kTick);
      if (signal && is_second_stop(*signal)) return end_at_once(*signal);
      if (signal) take(*signal);
      if (const auto why = overdue()) return end_overdue(*why);
    }
  }

 private:
  bool waits_for_first_rank() const { return limits_.all_ranks_are_here && most_ranks_ == 0; }

  bool is_second_stop(int signal) const { return stop_ && signal != SIGCHLD && signal != SIGUSR1; }

  void take(int signal) {
    if (signal == SIGCHLD) return;
    if (signal != SIGUSR1) stop_ = signal;
    if (!asked_)
      say_at_supervisor(
          fmt::format("{}: the ranks are asked to save and end, within {} s; a further SIGTERM or SIGINT "
                      "ends them at once",
                      name_of_signal(signal), limits_.saving.count()));
    if (!asked_) asked_ = Clock::now();
    ask_again_ = Clock::now();
  }

  /// Why the job must be ended by force, if so. Asks the ranks to save, now and then, while they should.
  std::optional<std::string> overdue() {
    const auto now = Clock::now();
    if (asked_ && now >= ask_again_) {
      mpirun_.signal(SIGUSR1);
      ask_again_ = now + kAskAgain;
    }
    if (asked_ && now > *asked_ + limits_.saving)
      return fmt::format("the ranks did not save and end within {} s", limits_.saving.count());
    if (now >= next_count_ || waits_for_first_rank()) count_ranks(now);
    if (ranks_missing_ && now > *ranks_missing_ + limits_.ending)
      return fmt::format("mpirun did not end within {} s after ranks of this machine had ended",
                         limits_.ending.count());
    return std::nullopt;
  }

  void count_ranks(Clock::time_point now) {
    const int ranks = ranks_here(job_);
    most_ranks_ = std::max(most_ranks_, ranks);
    if (ranks == most_ranks_) ranks_missing_.reset();
    if (ranks < most_ranks_ && !ranks_missing_) ranks_missing_ = now;
    next_count_ = now + 2s;
  }

  JobEnd end_by_itself(int status) const {
    JobEnd end = end_of_job(status);
    if (!asked_ && waits_for_first_rank() && end.exit_code == kMpirunRefused)
      return {"mpirun started no rank, for the reason that it gives above (exit code 1)",
              static_cast<int>(ExitCode::user_error), false};
    if (!asked_ || end.exit_code == 0) return end;
    if (was_too_early(status)) return {"stopped before it had begun; nothing was lost", kPreempted, false};
    end.restart = false;
    return end;
  }

  JobEnd end_at_once(int signal) {
    mpirun_.end(kMpirunCleans);
    return {fmt::format("ended at once by a second signal, {}", name_of_signal(signal)), 128 + signal, false};
  }

  JobEnd end_overdue(const std::string& why) {
    mpirun_.end(kMpirunCleans);
    return {why, kLost, !asked_};
  }

  Process& mpirun_;
  const Signals& signals_;
  const WatchLimits& limits_;
  const std::string& job_;
  std::optional<int> stop_;  ///< the first signal that is not a mere request
  std::optional<Clock::time_point> asked_, ranks_missing_;
  Clock::time_point ask_again_, next_count_;
  int most_ranks_ = 0;
};

}  // namespace

JobEnd watch(Process& mpirun, const Signals& signals, const WatchLimits& limits, const std::string& job) {
  return Watch(mpirun, signals, limits, job).run();
}

JobEnd stopped_between_jobs(int signal) {
  return {fmt::format("{} came between two starts; nothing was lost", name_of_signal(signal)), kPreempted,
          false};
}

void say_at_supervisor(const std::string& message) {
  const std::string line =
      fmt::format("lamina: {:%H:%M:%S} {}\n", fmt::localtime(std::time(nullptr)), message);
  std::fputs(line.c_str(), stderr);  // where nobody reads it, the run goes on
}

}  // namespace lamina
