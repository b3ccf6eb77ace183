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
  /// Calls begin_step(place, t) for every layer under way and then runs its step, the layers in order of
  /// their places: place i begins in wave i.
  template <class BeginStep>
  void run_waves(std::vector<TimeSteps>& places, int time_steps, ExchangeRound& round,
                 const BeginStep& begin_step) const;

  std::vector<CpuRecurrence*> layers_;  ///< from the lowest on
  Communicator& model_axis_;
};

}  // namespace lamina
