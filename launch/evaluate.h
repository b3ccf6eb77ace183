// Mean loss of a model over a text: for the validations of a training run and for `lamina evaluate`.
#pragma once

#include <cstdint>

#include "io/text.h"
#include "model/language_model.h"
#include "runtime/backend.h"
#include "runtime/process_grid.h"

namespace lamina {

struct EvaluationResult {
  double loss = 0;  ///< mean over the predictions, nats
  std::int64_t predictions = 0;
};

/// Reads `lanes` from a zero state, without dropout, in chunks of at most `time_steps`. The state that
/// training carries is not touched; the model forgets its latest forward(). Collective over the grid's world;
/// equal on all ranks.
EvaluationResult evaluate_text(LanguageModel& model, const EvaluationLanes& lanes, Backend& backend,
                               ProcessGrid& grid, int time_steps);

}  // namespace lamina
