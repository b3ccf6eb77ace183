// Stages that all ranks pass together or fail together.
#pragma once

#include <functional>

#include "runtime/communicator.h"

namespace lamina::checkpoint {

/// Runs `stage` on every rank and votes: all ranks return, or all throw the error of the first rank that
/// failed. UserError and DamagedCheckpoint keep their type, anything else becomes InternalError. A PeerError
/// passes through: there is nobody left to vote with. Collective; `stage` must not leave peers waiting.
void agree(Communicator& world, const std::function<void()>& stage);

}  // namespace lamina::checkpoint
