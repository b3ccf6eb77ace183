// The training loop.
#pragma once

#include "launch/configuration.h"
#include "runtime/communicator.h"

namespace lamina {

/// What a run came to; equal on all ranks.
struct TrainingResult {
  std::int64_t step = 0;
  double loss = 0;           ///< of the last interval, mean nats per prediction
  double gradient_norm = 0;  ///< of the last step
  bool last_checkpoint_written = true;
  bool preempted = false;  ///< it was asked to stop before its last step
};

/// Trains by `configuration` on the ranks of `world`; rank 0 reports to stdout. Collective.
/// Throws UserError, DamagedCheckpoint; see ExitCode for what main() makes of them.
TrainingResult train(const Configuration& configuration, Communicator& world);

}  // namespace lamina
