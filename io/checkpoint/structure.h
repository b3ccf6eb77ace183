// Opens an existing checkpoint and checks its structure before anything of it is used: a foreign or damaged
// file may point to other files, claim absurd sizes, or mix two checkpoints.
#pragma once

#include <filesystem>
#include <functional>

#include "io/checkpoint/damage.h"
#include "io/checkpoint/digest.h"
#include "io/checkpoint/hdf5.h"

namespace lamina::checkpoint {

/// What a file says of itself, checked against its root digest; the tensors' numbers are not yet read.
struct Structure {
  CheckpointRecord record;
  std::vector<DescribedTensor> tensors;  ///< ascending order of path
  Digest root;

  const DescribedTensor* find(const std::string& path) const;  ///< null where there is none
};

/// Calls `read` with the open file and its structure. Throws UserError for a missing, foreign or
/// other-version file, DamagedCheckpoint for one that is not whole; HDF5's own errors in `read` count as
/// damage.
void with_checkpoint(const std::filesystem::path& file,
                     const std::function<void(hid_t file, const Structure& structure)>& read);

/// Compares a box that was read with its digest. Throws Damage naming the tensor.
void check_box(const DescribedTensor& tensor, int outer_part, int split_part, std::span<const float> values);
/// Reads a box and compares it.
void read_checked_box(hid_t dataset, const DescribedTensor& tensor, int outer_part, int split_part,
                      std::span<float> values);

}  // namespace lamina::checkpoint
