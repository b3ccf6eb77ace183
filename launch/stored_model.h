// The sizes of a model in a checkpoint, which may be a stranger's: memory is taken only for what is in the
// file.
#pragma once

#include <filesystem>

#include "io/checkpoint.h"
#include "model/settings.h"

namespace lamina {

/// The model settings that the record of `file` holds. Throws UserError unless its layers and widths are
/// those of the tensors in the file, and DamagedCheckpoint as read_record().
ModelSettings stored_model(const std::filesystem::path& file, const CheckpointRecord& record);

}  // namespace lamina
