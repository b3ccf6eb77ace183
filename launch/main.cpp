// The program: MPI, a command, and one exit code and at most one message for the whole job.
#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "io/checkpoint.h"
#include "io/shared_outcome.h"
#include "launch/commands.h"
#include "launch/commands/benchmark/scaling.h"
#include "launch/commands/launch.h"
#include "launch/stop_request.h"
#include "runtime/communicator.h"
#include "runtime/error.h"
#include "runtime/fault_point.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;

/// How long a rank with an error that every rank should have waits for the others to say the same.
constexpr auto kAgreementLimit = 6s;
/// How long a rank that lost a peer leaves the word to that peer.
constexpr auto kPeerSpeaks = 3s;

void say(const std::string& message) {
  std::fflush(stdout);
  std::fputs(fmt::format("lamina: {}\n", message).c_str(), stderr);
}

void say_alone(int rank, const std::string& message) {
  say(fmt::format("rank {} on {}: {}", rank, host_name(), message));
}

/// Ends the whole job, for the other ranks may wait for this one.
[[noreturn]] void fail_alone(int rank, ExitCode code, const std::string& message) {
  std::fflush(stdout);
  MpiSession::abort(code, rank, message);
}

/// Ends the process when it lives longer than `limit`.
class Deadline {
 public:
  Deadline(std::chrono::seconds limit, const Outcome& outcome, int rank)
      : thread_([this, limit, outcome, rank](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          if (ended_.wait_for(lock, stop, limit, [&] { return stop.stop_requested(); })) return;
          say_alone(rank, outcome.reason);
          std::_Exit(static_cast<int>(outcome.code));  // mpirun ends the other ranks
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any ended_;
  std::jthread thread_;
};

/// Runs the command. An error that all ranks have alike is an outcome; any other ends the job.
Outcome outcome_of(const std::vector<std::string>& arguments, Communicator& world) {
  const int rank = world.rank();
  try {
    return {run_command(arguments, world)};
  } catch (const UserError& error) {
    return {error.code(), error.what()};
  } catch (const DamagedCheckpoint& error) {
    return {ExitCode::damaged_checkpoint, error.what()};
  } catch (const CheckpointWriteError& error) {
    return {ExitCode::checkpoint_not_written, error.what()};
  } catch (const PeerError& error) {
    if (!error.speaks_first()) std::this_thread::sleep_for(kPeerSpeaks);
    fail_alone(rank, ExitCode::peer_lost, error.what());
  } catch (const std::bad_alloc&) {
    return {ExitCode::user_error,
            "out of memory: give the job more ranks or hosts, or a smaller model, batch or number of "
            "time steps"};
  } catch (const std::exception& error) {
    fail_alone(rank, ExitCode::internal_error, error.what());
  }
}

/// Rank 0's output may still be on its way; a full disk shows here.
void flush_output(Outcome& outcome) {
  if (outcome.code == ExitCode::done && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0))
    outcome = {ExitCode::user_error,
               "standard output cannot be written: free space where it goes, or send it elsewhere"};
}

/// The code of the first rank that failed, on every rank; that rank says why, so it is said once. A rank that
/// failed while the others go on says so after a while and ends the job.
ExitCode agree(const Outcome& outcome, Communicator& world) {
  std::unique_ptr<Deadline> deadline;
  if (!outcome.reason.empty()) deadline = std::make_unique<Deadline>(kAgreementLimit, outcome, world.rank());

  world.conclude();  // before codes are exchanged: a peer that still works exchanges codes of its own
  const auto first = first_failed(outcome.code, world);
  if (!first) return ExitCode::done;
  if (first->rank == world.rank() && !outcome.reason.empty()) say(outcome.reason);
  return first->code;
}

ExitCode run(const std::vector<std::string>& arguments, Communicator& world) {
  Outcome outcome = outcome_of(arguments, world);
  flush_output(outcome);
  try {
    return agree(outcome, world);
  } catch (const std::exception& error) {
    if (outcome.code == ExitCode::done) fail_alone(world.rank(), ExitCode::peer_lost, error.what());
    fail_alone(world.rank(), outcome.code, outcome.reason.empty() ? error.what() : outcome.reason);
  }
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error of its write, which says so
  lamina::listen_for_stop_requests();
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (lamina::asks_for_supervisor(arguments)) return lamina::launch(arguments);
    if (lamina::asks_for_scaling(arguments)) return lamina::benchmark_scaling(arguments);
    if (lamina::faults_are_set()) lamina::say("LAMINA_FAULTS is set: this process fails on purpose");
    lamina::MpiSession session(&argc, &argv);
    return static_cast<int>(lamina::run(arguments, session.world()));
  } catch (const lamina::UserError& error) {
    lamina::say(error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    lamina::say(error.what());
    return static_cast<int>(lamina::ExitCode::internal_error);
  }
}
