// The other way to write: parallel HDF5 over MPI-IO.
#pragma once

#include <filesystem>
#include <vector>

#include "io/checkpoint.h"

namespace lamina::checkpoint {

/// Writes this rank's boxes into the skeleton `partial` and brings them to the disk. Collective over `world`,
/// which is one of MPI; throws on every rank alike.
void write_in_parallel(const std::filesystem::path& partial,
                       const std::vector<CheckpointTensor<const float>>& tensors, Communicator& world);

}  // namespace lamina::checkpoint
