#include "io/checkpoint/agreement.h"

#include "io/shared_outcome.h"

namespace lamina::checkpoint {
namespace {

Outcome outcome_of_stage(const std::function<void()>& stage) {
  try {
    return outcome_of(stage);
  } catch (const PeerError&) {
    throw;
  } catch (const std::exception& error) {
    return {ExitCode::internal_error, error.what()};
  }
}

}  // namespace

void agree(Communicator& world, const std::function<void()>& stage) { share(outcome_of_stage(stage), world); }

}  // namespace lamina::checkpoint
