// Named places where a test makes a rank fail. The environment variable LAMINA_FAULTS lists the faults,
// separated by ';', each POINT:ACTION[:KEY=VALUE]…, e.g.
// "gradient_sync:kill:rank=1:count=3;file_write:enospc:times=2".
//
//   actions  kill (SIGKILL), stop (SIGSTOP), crash (SIGSEGV), hang (never returns), enospc, eio, corrupt
//   keys     rank=R    the rank in the world that fails (default: every rank)
//            count=N   the N-th passage of the point is the first that fails (default 1)
//            times=N   so many passages fail (default 1; 0: all from then on)
//            once=FILE the fault happens only where FILE can be created, so not again after a restart
//
// Without the variable a passage costs one test of a flag.
#pragma once

#include <cstdint>
#include <string>

namespace lamina {

enum class FaultPoint : std::uint8_t {
  step,                ///< the beginning of a training step
  forward_exchange,    ///< in the time loop of a recurrent layer, before its exchange of h
  gradient_sync,       ///< before the rank waits for the sums of gradients over the data axis
  gradient,            ///< corrupt: a number of this rank's gradients becomes NaN
  parameter,           ///< corrupt: a bit of this rank's parameters flips
  checkpoint_write,    ///< while a rank writes its boxes into the partial file
  before_rename,       ///< the partial file is complete and on disk
  before_folder_sync,  ///< the file has its name, its folder is not yet on disk
  file_open,           ///< enospc, eio: of files that belong to checkpoints
  file_write,
  file_sync,
  file_rename,
  file_read,
};

/// Whether LAMINA_FAULTS lists any. Throws UserError, naming what is wrong, where it cannot be read.
bool faults_are_set();
/// Puts the faults of `text`, in the same words, in the place of what was ordered: for tests that try one
/// after another. While no thread passes a point.
void order_faults(const std::string& text);

/// Does what is ordered here: kill, stop, crash or hang.
void fault_point(FaultPoint point);
/// As fault_point(); ENOSPC or EIO where that is ordered, else 0.
[[nodiscard]] int injected_error(FaultPoint point);
/// As fault_point(); whether the caller is to spoil its own numbers.
[[nodiscard]] bool injected_corruption(FaultPoint point);

}  // namespace lamina
