// lamina checkpoint: what is in a file, and whether it is whole. For one rank.
#pragma once

#include <string>
#include <vector>

namespace lamina {

/// Prints record, tensors and configuration of a checkpoint file, or of the newest one in a folder.
void inspect_checkpoint(const std::string& file_or_folder, bool json);

/// Checks every digest of the given files, and of all checkpoints in the given folders; prints a line for
/// each. Throws DamagedCheckpoint or UserError, after the last file, when one is not whole.
void verify_checkpoints(const std::vector<std::string>& files_or_folders);

}  // namespace lamina
