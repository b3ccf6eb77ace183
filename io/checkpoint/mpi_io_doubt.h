// Which MPI libraries may write wrong bytes without reporting an error.
#pragma once

#include <string>

namespace lamina::checkpoint {

/// Collective writes of Open MPI spoil small datasets where several ranks gather data (open-mpi/ompi#12718),
/// repaired in 4.1.7 and 5.0.6. `mpi` is what mpi_library() says.
bool is_in_doubt(const std::string& mpi);

}  // namespace lamina::checkpoint
