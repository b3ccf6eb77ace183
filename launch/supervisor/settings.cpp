#include "launch/supervisor/settings.h"

#include "launch/setting.h"
#include "launch/supervisor/words.h"

namespace lamina {

void LaunchSettings::validate() const {
  at_least("ranks", ranks, 0);
  at_least("max-restarts", max_restarts, 0);
  at_least("grace", grace, 0);
  at_least("end-timeout", end_timeout, 1);
  at_least("host-timeout", host_timeout, 1);
  require(backoff >= 0, "--backoff must be at least 0");
  require(!words_of(mpirun).empty(), "--mpirun must name mpirun, not be empty");
  require(ranks > 0 || !hosts.empty(),
          "lamina launch needs --ranks N, or --hosts FILE with the slots of each host");
}

}  // namespace lamina
