// Processes of this machine, as the system sees them.
#pragma once

#include <sys/types.h>

namespace lamina {

/// The letter of /proc/PID/stat: R, S, D (waits for a disk), T (stopped), Z …; 0 where there is no such
/// process.
char process_state(pid_t pid);
/// Gone, or dead and not yet buried.
bool has_ended(pid_t pid);

/// The process that started this one on behalf of mpirun or srun, or mpirun itself; 0 when this process was
/// started otherwise.
pid_t launcher_of_this_process();

}  // namespace lamina
