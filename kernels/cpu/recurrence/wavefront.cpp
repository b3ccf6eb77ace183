#include "kernels/cpu/recurrence/wavefront.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/dropout.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {

CpuWavefront::CpuWavefront(std::vector<CpuRecurrence*> layers, Communicator& model_axis)
    : layers_(std::move(layers)), round_(model_axis), d_input_(layers_.size()) {
  check(!layers_.empty(), "wavefront: no layers");
  for (std::size_t l = 1; l < layers_.size(); ++l)
    check(layers_[l]->shape().inputs == layers_[l - 1]->shape().hidden &&
              layers_[l]->shape().exchange == layers_[l - 1]->shape().exchange,
          "wavefront: a layer does not fit on the one below");
}

// From its beginning to its end, an exception's too: the coroutines do not stay in the layers' memory.
class CpuWavefront::Pass {
 public:
  explicit Pass(CpuWavefront& of) : of_(of) { of.round_.clear(); }
  ~Pass() { of_.steps_.clear(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

 private:
  CpuWavefront& of_;
};

template <class BeginStep, class EndWave>
void CpuWavefront::run_waves(int time_steps, const BeginStep& begin_step, const EndWave& end_wave) {
  const std::size_t times = size(time_steps), places = steps_.size();
  for (std::size_t wave = 0; wave + 1 < times + places; ++wave) {
    const Span span(SpanKind::pointwise, "wave");
    const std::size_t first = wave < times ? 0 : wave - times + 1, last = std::min(wave + 1, places);
    for (std::size_t place = first; place < last; ++place) begin_step(place, static_cast<int>(wave - place));
    run_step(std::span(steps_).subspan(first, last - first), round_);
    end_wave();
  }
}

void CpuWavefront::forward(std::span<const Forward> layers) {
  const Span span(SpanKind::pointwise, "layers forward");
  check(layers.size() == layers_.size(), "wavefront: one argument for each layer");
  const Pass pass(*this);
  const int time_steps = layers.front().layer.time_steps;
  using Comes = CpuRecurrence::Comes;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const auto& [layer, mask, dropped] = layers[l];
    check(layer.time_steps == time_steps, "wavefront: layers have different numbers of time steps");
    check(l == 0 || layer.input.data() == (mask != nullptr ? dropped : layers[l - 1].layer.output).data(),
          "wavefront: the input of a layer must be the output of the one below");
    layers_[l]->begin_forward(layer, l == 0 ? Comes::whole : Comes::by_steps);
    steps_.push_back(layers_[l]->forward_steps(round_));
  }
  const auto drop_input = [&](std::size_t l, int t) {
    if (l > 0 && layers[l].mask != nullptr)
      dropout::forward_at(layers_[l]->threads(), *layers[l].mask, t, layers[l - 1].layer.output,
                          layers[l].dropped);
  };
  run_waves(time_steps, drop_input, [] {});
  for (std::size_t l = 0; l < layers_.size(); ++l) layers_[l]->end_forward(layers[l].layer);
}

void CpuWavefront::begin_backward(std::span<const Backward> layers) {
  using Comes = CpuRecurrence::Comes;
  const std::size_t top = layers_.size() - 1;
  for (std::size_t l = 0; l <= top; ++l) {
    layers_[l]->begin_backward(layers[l].layer, l == top ? Comes::whole : Comes::by_steps, d_input_[l]);
    if (l == top) break;
    check(layers[l + 1].layer.d_input.data() == layers[l].layer.d_output.data(),
          "wavefront: dL/dx of a layer must be dL/dh of the one below");
    const std::span<float> of_all_blocks = layers_[l]->d_output_all();
    d_input_[l + 1] = of_all_blocks.empty() ? layers[l + 1].layer.d_input : of_all_blocks;
  }
  for (std::size_t l = top + 1; l-- > 0;) steps_.push_back(layers_[l]->backward_steps(round_));
}

void CpuWavefront::backward(std::span<const Backward> layers,
                            const std::function<void(std::size_t layer)>& gradients_are_set) {
  const Span span(SpanKind::pointwise, "layers backward");
  check(layers.size() == layers_.size(), "wavefront: one argument for each layer");
  const Pass pass(*this);
  begin_backward(layers);
  const std::size_t count = layers_.size();
  const int time_steps = layers_.front()->steps();
  const auto drop_gradient = [&](std::size_t place, int steps_done) {
    const std::size_t l = count - 1 - place;
    if (place > 0 && layers[l + 1].mask != nullptr)  // dL/dh of this step has come from above
      dropout::backward_at(layers_[l]->threads(), *layers[l + 1].mask, time_steps - 1 - steps_done,
                           layers_[l]->output_share(), d_input_[l + 1]);
  };
  run_waves(time_steps, drop_gradient, layers.back().layer.side_work.advance);
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
