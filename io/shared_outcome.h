// How work ended on each rank, and what all of them make of it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina {

struct Outcome {
  ExitCode code = ExitCode::done;
  std::string reason{};
};

struct FailedRank {
  int rank = 0;
  ExitCode code = ExitCode::internal_error;
};

/// The first rank whose `code` is not `done`; the same on all. Collective.
std::optional<FailedRank> first_failed(ExitCode code, Communicator& world);

/// A UserError or DamagedCheckpoint of `work` as an outcome; any other error passes.
Outcome outcome_of(const std::function<void()>& work);

/// Returns on all ranks, or throws on all that of the first rank whose work failed: as InternalError where
/// its code says so. Collective.
void share(Outcome mine, Communicator& world);

}  // namespace lamina
