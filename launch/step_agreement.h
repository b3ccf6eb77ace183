// What the ranks tell each other in every step, in one exchange: whether someone asked to stop, whether the
// checkpoint on its way can go on, and whether a number is not finite. Whatever follows, they do alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/communicator.h"
#include "runtime/parameter.h"

namespace lamina {

/// Where a rank found a number that is not finite. In order: an earlier one is the cause of later ones.
struct NonFinite {
  enum class Place : std::int32_t { nowhere, parameter, loss, gradient, gradient_norm };
  Place place = Place::nowhere;
  std::int32_t parameter = 0;  ///< its index in the table, of `parameter` and `gradient`
};

/// What one rank has to say about a step.
struct StepNote {
  bool stop = false;         ///< it was asked to save and end
  bool save_is_idle = true;  ///< it has done its part of the present stage of a checkpoint
  NonFinite non_finite;
};

class StepAgreement {
 public:
  StepAgreement() = default;
  /// Collective; equal on all ranks.
  StepAgreement(const StepNote& mine, Communicator& world);

  bool stop() const { return stop_; }
  bool save_is_idle() const { return save_is_idle_; }
  bool all_finite() const { return first_.place == NonFinite::Place::nowhere; }
  bool parameters_are_finite() const { return first_.place != NonFinite::Place::parameter; }
  /// "the gradient of lstm0/W_h is not finite on rank 3": the first place, and the lowest rank that has it.
  std::string non_finite_text(const ParameterTable& table) const;

 private:
  bool stop_ = false, save_is_idle_ = true;
  NonFinite first_;
  int first_rank_ = 0;
};

/// What is not finite on this rank after a backward pass. `gradients`: by parameter, whether this rank's own
/// gradient is not. The backward pass reaches the last parameters first, so of several gradients the last one
/// is named.
NonFinite find_non_finite(ParameterTable& table, std::span<const double> losses,
                          const std::vector<bool>& gradients, Backend& backend);

}  // namespace lamina
