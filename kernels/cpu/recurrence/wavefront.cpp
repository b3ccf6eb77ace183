#include "kernels/cpu/recurrence/wavefront.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/dropout.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {

CpuWavefront::CpuWavefront(std::vector<CpuRecurrence*> layers, Communicator& model_axis)
    : layers_(std::move(layers)), model_axis_(model_axis) {
  for (std::size_t l = 1; l < layers_.size(); ++l)
    check(layers_[l]->shape().inputs == layers_[l - 1]->shape().hidden &&
              layers_[l]->shape().exchange == layers_[l - 1]->shape().exchange,
          "wavefront: a layer does not fit on the one below");
}

template <class BeginStep>
void CpuWavefront::run_waves(std::vector<TimeSteps>& places, int time_steps, ExchangeRound& round,
                             const BeginStep& begin_step) const {
  const std::size_t steps = size(time_steps);
  for (std::size_t wave = 0; wave + 1 < steps + places.size(); ++wave) {
    const Span span(SpanKind::pointwise, "wave");
    const std::size_t first = wave < steps ? 0 : wave - steps + 1, last = std::min(wave + 1, places.size());
    for (std::size_t place = first; place < last; ++place) begin_step(place, static_cast<int>(wave - place));
    run_step(std::span(places).subspan(first, last - first), round);
  }
}

void CpuWavefront::forward(std::span<const Forward> layers) {
  const Span span(SpanKind::pointwise, "layers forward");
  check(layers.size() == layers_.size(), "wavefront: one argument for each layer");
  const int time_steps = layers.front().layer.time_steps;
  using Comes = CpuRecurrence::Comes;
  ExchangeRound round(model_axis_);
  std::vector<TimeSteps> steps;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    check(layers[l].layer.time_steps == time_steps, "wavefront: layers have different numbers of time steps");
    layers_[l]->begin_forward(layers[l].layer, l == 0 ? Comes::whole : Comes::by_steps);
    steps.push_back(layers_[l]->forward_steps(round));
  }
  run_waves(steps, time_steps, round, [&](std::size_t l, int t) {
    if (l > 0 && layers[l].mask != nullptr)
      dropout::forward_at(layers_[l]->threads(), *layers[l].mask, t, layers[l - 1].layer.output,
                          layers[l].dropped);
  });
  for (std::size_t l = 0; l < layers_.size(); ++l) layers_[l]->end_forward(layers[l].layer);
}

void CpuWavefront::backward(std::span<const Backward> layers,
                            const std::function<void(std::size_t layer)>& gradients_are_set) {
  const Span span(SpanKind::pointwise, "layers backward");
  check(layers.size() == layers_.size(), "wavefront: one argument for each layer");
  using Comes = CpuRecurrence::Comes;
  ExchangeRound round(model_axis_);
  const std::size_t count = layers_.size();
  std::vector<TimeSteps> steps;                  // from the highest layer on
  std::vector<std::span<float>> d_input(count);  // of a layer: where it is passed down by steps
  for (std::size_t l = 0; l < count; ++l) {
    layers_[l]->begin_backward(layers[l].layer, l + 1 == count ? Comes::whole : Comes::by_steps, d_input[l]);
    if (l + 1 == count) break;
    check(layers[l + 1].layer.d_input.data() == layers[l].layer.d_output.data(),
          "wavefront: dL/dx of a layer must be dL/dh of the one below");
    const std::span<float> complete = layers_[l]->d_output_all();
    d_input[l + 1] = complete.empty() ? layers[l + 1].layer.d_input : complete;
  }
  for (std::size_t l = count; l-- > 0;) steps.push_back(layers_[l]->backward_steps(round));
  const int time_steps = layers_.front()->steps();
  run_waves(steps, time_steps, round, [&](std::size_t place, int wave) {
    const std::size_t l = count - 1 - place;  // which gets dL/dh of this step from the layer above
    if (l + 1 < count && layers[l + 1].mask != nullptr)
      dropout::backward_at(layers_[l]->threads(), *layers[l + 1].mask, time_steps - 1 - wave,
                           layers_[l]->output_share(), d_input[l + 1]);
    if (place == 0) layers.front().layer.side_work.advance();
  });
  for (std::size_t l = count; l-- > 0;) {
    layers_[l]->end_backward(layers[l].layer);
    gradients_are_set(l);
  }
}

std::unique_ptr<Wavefront> make_cpu_wavefront(const std::vector<Recurrence*>& layers,
                                              Communicator& model_axis) {
  std::vector<CpuRecurrence*> ours;
  for (Recurrence* layer : layers) {
    ours.push_back(dynamic_cast<CpuRecurrence*>(layer));
    check(ours.back() != nullptr, "wavefront: a layer of another device");
  }
  return std::make_unique<CpuWavefront>(std::move(ours), model_axis);
}

}  // namespace lamina
