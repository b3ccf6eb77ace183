#include "launch/agreement.h"

#include <algorithm>
#include <vector>

#include "io/checkpoint.h"
#include "runtime/error.h"

namespace lamina {
namespace {

/// How work ended on one rank: an exit code, and what there is to say.
struct Outcome {
  int code = 0;
  std::string message;
};

Outcome outcome_of(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const UserError& error) {
    return {static_cast<int>(error.code()), error.what()};
  } catch (const DamagedCheckpoint& error) {
    return {static_cast<int>(ExitCode::damaged_checkpoint), error.what()};
  }
}

[[noreturn]] void rethrow(const Outcome& outcome) {
  const auto code = static_cast<ExitCode>(outcome.code);
  if (code == ExitCode::damaged_checkpoint) throw DamagedCheckpoint(outcome.message);
  throw UserError(outcome.message, code);
}

}  // namespace

std::string from_root(Communicator& world, const std::function<std::string()>& work) {
  std::string text;
  on_every_rank(world, [&] {
    if (world.rank() == 0) text = work();
  });
  world.broadcast(text, 0);
  return text;
}

void on_every_rank(Communicator& world, const std::function<void()>& work) {
  Outcome mine = outcome_of(work);
  std::vector<int> codes(static_cast<std::size_t>(world.size()));
  world.all_gather(std::span<const int>(&mine.code, 1), std::span(codes));
  const auto first = std::find_if(codes.begin(), codes.end(), [](int code) { return code != 0; });
  if (first == codes.end()) return;
  world.broadcast(mine.message, static_cast<int>(first - codes.begin()));
  rethrow({*first, mine.message});
}

}  // namespace lamina
