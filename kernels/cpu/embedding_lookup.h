// Rows of a table that is split by column.
#pragma once

#include <memory>

#include "runtime/backend.h"

namespace lamina {

/// `model_axis` must outlive the lookup.
std::unique_ptr<EmbeddingLookup> make_cpu_embedding_lookup(const EmbeddingShape& shape,
                                                           Communicator& model_axis, int threads);

}  // namespace lamina
