// lamina checkpoint: what is in a file, whether it is whole, and its tensors for NumPy. For one rank.
#pragma once

#include <string>
#include <vector>

namespace lamina {

/// Prints record, tensors and configuration of a checkpoint file, or of the newest one in a folder.
void inspect_checkpoint(const std::string& file_or_folder, bool json);

/// Checks every digest of the given files, and of all checkpoints in the given folders; prints a line for
/// each. Throws DamagedCheckpoint or UserError, after the last file, when one is not whole.
void verify_checkpoints(const std::vector<std::string>& files_or_folders);

struct ExportSettings {
  std::string checkpoint;  ///< file, or a folder of them (its newest)
  std::string tensor;      ///< path of a tensor or of a group of them; empty: all
  std::string output;      ///< .npy (one tensor) or .npz (any number, each by its path without the first /)
  bool overwrite = false;
};

/// Writes tensors of a checkpoint to a file for NumPy, each digest checked. The file is complete or absent.
/// Throws DamagedCheckpoint or UserError.
void export_checkpoint(const ExportSettings& settings);

}  // namespace lamina
