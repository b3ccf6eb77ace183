// Recurrent layers beside each other, on CPUs. A wave is one time step of each layer that is under way; their
// messages share its rounds of exchanges.
#pragma once

#include <memory>
#include <vector>

#include "kernels/cpu/recurrence/cpu_recurrence.h"
#include "runtime/backend.h"

namespace lamina {

class CpuWavefront final : public Wavefront {
 public:
  /// `layers` and `model_axis` must outlive it.
  CpuWavefront(std::vector<CpuRecurrence*> layers, Communicator& model_axis);

  void forward(std::span<const Forward> layers) override;
  void backward(std::span<const Backward> layers,
                const std::function<void(std::size_t layer)>& gradients_are_set) override;

 private:
  class Pass;
  void begin_backward(std::span<const Backward> layers);
  /// Runs all steps; calls begin_step(place, steps done) before each step of a layer. The layer at place i
  /// begins in wave i.
  template <class BeginStep>
  void run_waves(int time_steps, const BeginStep& begin_step);

  std::vector<CpuRecurrence*> layers_;  ///< from the lowest on
  ExchangeRound round_;
  std::vector<TimeSteps> steps_;           ///< of the layers by their places; empty between passes
  std::vector<std::span<float>> d_input_;  ///< [layers]: where a layer passes its dL/dx down to, if it does
};

}  // namespace lamina
