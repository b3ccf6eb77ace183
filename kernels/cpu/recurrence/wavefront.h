// Recurrent layers beside each other, on CPUs. A wave is one time step of each layer that is under way; their
// messages share its rounds of exchanges.
#pragma once

#include <functional>
#include <span>
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
  /// Runs all steps; calls begin_step(place, steps done) before each step of a layer, and end_wave() behind
  /// all steps of a wave. The layer at place i begins in wave i.
  template <class BeginStep, class EndWave>
  void run_waves(int time_steps, const BeginStep& begin_step, const EndWave& end_wave);

  std::vector<CpuRecurrence*> layers_;  ///< from the lowest on
  ExchangeRound round_;
  std::vector<TimeSteps> steps_;           ///< of the layers by their places; empty between passes
  std::vector<std::span<float>> d_input_;  ///< [layers]: where a layer passes its dL/dx down to, if it does
};

}  // namespace lamina
