#include "launch/supervisor/job_end.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>

namespace lamina {
namespace {

constexpr int kLastSignal = 64;

struct Known {
  ExitCode code;
  const char* words;
  bool restart;
};

// Where the same command would come to the same end, it is not started again. A full disk needs a person.
constexpr std::array kKnown{
    Known{ExitCode::done, "the run is done", false},
    Known{ExitCode::internal_error, "an internal error, or mpirun could not start the job", true},
    Known{ExitCode::user_error, "a user error", false},
    Known{ExitCode::damaged_checkpoint, "a damaged checkpoint", true},
    Known{ExitCode::preempted_and_saved, "preempted and saved", false},
    Known{ExitCode::peer_lost, "a peer was lost", true},
    Known{ExitCode::non_finite_loss, "the loss or the gradient norm is not finite", false},
    Known{ExitCode::checkpoint_not_written, "checkpoints cannot be written", false},
    Known{ExitCode::replicas_differ, "replicas differ", true}};

JobEnd end_with_code(int code) {
  const auto known =
      std::ranges::find_if(kKnown, [&](const Known& k) { return static_cast<int>(k.code) == code; });
  if (known != kKnown.end())
    return {fmt::format("{} (exit code {})", known->words, code), code, known->restart};
  const int lost = static_cast<int>(ExitCode::peer_lost);
  if (code > 128 && code <= 128 + kLastSignal)
    return {fmt::format("a rank was killed by {} (exit code {})", name_of_signal(code - 128), code), lost,
            true};
  return {fmt::format("mpirun failed or lost a host (exit code {})", code), lost, true};
}

}  // namespace

JobEnd end_of_job(int status) {
  if (WIFSIGNALED(status))
    return {fmt::format("mpirun was killed by {}", name_of_signal(WTERMSIG(status))),
            static_cast<int>(ExitCode::peer_lost), true};
  return end_with_code(WEXITSTATUS(status));
}

}  // namespace lamina
