#include "launch/version.h"

#include <fmt/format.h>

#include "io/checkpoint.h"
#include "kernels/backends.h"
#include "runtime/communicator.h"

namespace lamina {

std::string version() { return LAMINA_VERSION; }

std::string build_record() {
  const std::string mpi = mpi_library();
  return fmt::format("lamina {}; {}; {}; {}", version(), mpi.substr(0, mpi.find(',')), hdf5_library(),
                     cpu_description());
}

}  // namespace lamina
