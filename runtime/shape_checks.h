// Whether the arrays that a layer is given fit its shape, asked alike by every backend. What does not is a
// mistake of ours: InternalError. Legend of shapes: runtime/backend.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/backend.h"

namespace lamina {

void check_fits(const RecurrenceShape& shape, const RecurrenceForward& f);
/// `time_steps`: of the forward pass that it belongs to.
void check_fits(const RecurrenceShape& shape, int time_steps, const RecurrenceBackward& b);

/// `table`: elements of this rank's part of the table, or of its gradient.
void check_fits(const EmbeddingShape& shape, int time_steps, std::size_t table,
                std::span<const std::int32_t> tokens);

}  // namespace lamina
