// A checkpoint file without its numbers: groups, datasets of the right sizes, attributes, digests.
#pragma once

#include <filesystem>

#include "io/checkpoint/digest.h"

namespace lamina::checkpoint {

/// Not less than the size of the whole file.
std::int64_t file_size_bound(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors);

/// Makes `partial` on this rank alone. HDF5 builds it in memory and the disk sees plain writes, because HDF5
/// 1.10 cannot recover when the disk refuses a write (a file that fails to close crashes the process later).
/// `tensors` are in ascending order of path; each gets its place. Throws std::runtime_error with the system's
/// reason.
void create_skeleton(const std::filesystem::path& partial, const CheckpointRecord& record,
                     std::vector<DescribedTensor>& tensors);

}  // namespace lamina::checkpoint
