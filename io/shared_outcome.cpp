#include "io/shared_outcome.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "io/checkpoint.h"

namespace lamina {
namespace {

[[noreturn]] void rethrow(const Outcome& outcome) {
  if (outcome.code == ExitCode::internal_error) throw InternalError(outcome.reason);
  if (outcome.code == ExitCode::damaged_checkpoint) throw DamagedCheckpoint(outcome.reason);
  throw UserError(outcome.reason, outcome.code);
}

}  // namespace

std::optional<FailedRank> first_failed(ExitCode code, Communicator& world) {
  const auto own = static_cast<std::int32_t>(code);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(world.size()));
  world.all_gather(std::span(&own, 1), std::span(codes));
  const auto first = std::find_if(codes.begin(), codes.end(), [](std::int32_t c) { return c != 0; });
  if (first == codes.end()) return std::nullopt;
  return FailedRank{static_cast<int>(first - codes.begin()), static_cast<ExitCode>(*first)};
}

Outcome outcome_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const UserError& error) {
    return {error.code(), error.what()};
  } catch (const DamagedCheckpoint& error) {
    return {ExitCode::damaged_checkpoint, error.what()};
  }
}

void share(Outcome mine, Communicator& world) {
  const auto first = first_failed(mine.code, world);
  if (!first) return;
  world.broadcast(mine.reason, first->rank);
  rethrow({first->code, mine.reason});
}

}  // namespace lamina
