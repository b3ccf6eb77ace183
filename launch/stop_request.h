// SIGUSR1: whoever preempts this job asks it to save and end. mpirun and srun pass the signal on to the
// ranks.
#pragma once

namespace lamina {

/// From now on SIGUSR1 is a request instead of the end of the process.
void listen_for_stop_requests();
/// Whether this process has been asked to save and end.
bool stop_requested();

}  // namespace lamina
