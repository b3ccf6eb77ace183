#include "io/checkpoint/agreement.h"

#include <array>
#include <vector>

#include "io/checkpoint.h"
#include "runtime/error.h"

namespace lamina::checkpoint {
namespace {

enum Kind : std::int32_t { kFine, kUser, kDamaged, kInternal };

struct Verdict {
  std::int32_t kind = kFine;
  std::int32_t exit_code = 0;
  std::string reason;
};

Verdict verdict_of(const std::function<void()>& stage) {
  try {
    stage();
    return {};
  } catch (const PeerError&) {
    throw;
  } catch (const UserError& error) {
    return {kUser, static_cast<std::int32_t>(error.code()), error.what()};
  } catch (const DamagedCheckpoint& error) {
    return {kDamaged, 0, error.what()};
  } catch (const std::exception& error) {
    return {kInternal, 0, error.what()};
  }
}

[[noreturn]] void rethrow(const Verdict& verdict) {
  if (verdict.kind == kUser) throw UserError(verdict.reason, static_cast<ExitCode>(verdict.exit_code));
  if (verdict.kind == kDamaged) throw DamagedCheckpoint(verdict.reason);
  throw InternalError(verdict.reason);
}

}  // namespace

void agree(Communicator& world, const std::function<void()>& stage) {
  Verdict verdict = verdict_of(stage);
  const std::array<std::int32_t, 2> mine = {verdict.kind, verdict.exit_code};
  std::vector<std::int32_t> all(2 * static_cast<std::size_t>(world.size()));
  world.all_gather(std::span<const std::int32_t>(mine), std::span(all));
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::size_t at = 2 * static_cast<std::size_t>(rank);
    if (all[at] == kFine) continue;
    world.broadcast(verdict.reason, rank);
    rethrow({all[at], all[at + 1], verdict.reason});
  }
}

}  // namespace lamina::checkpoint
