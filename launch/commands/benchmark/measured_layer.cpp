#include "launch/commands/benchmark/measured_layer.h"

#include <array>
#include <cmath>

#include "launch/commands/benchmark/layer_products.h"
#include "launch/commands/benchmark/stopwatch.h"
#include "runtime/random.h"

namespace lamina {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

RecurrenceShape with_tiling(RecurrenceShape shape, const Tiling& tiling) {
  shape.tiling = tiling;
  return shape;
}

LayerProducts products_of(const RecurrenceShape& shape) {
  return products_of_lstm(shape.inputs, shape.hidden, shape.max_time_steps, shape.tiling);
}

double sum_over_ranks(double value, Communicator& world) {
  world.all_reduce(std::span(&value, 1));
  return value;
}

}  // namespace

MeasuredLayer::MeasuredLayer(RecurrenceShape shape, int batch, Backend& backend, ProcessGrid& grid)
    : backend_(backend),
      grid_(grid),
      batch_(batch),
      shape_(with_tiling(shape, grid.tiling())),
      layer_(backend.make_recurrence(shape_, grid.model())),
      forward_products_(backend.make_product_series(products_of(shape_).forward)),
      backward_products_(backend.make_product_series(products_of(shape_).backward)),
      forward_flops_(sum_over_ranks(flops_of(forward_products_->products()), grid.world())),
      backward_flops_(sum_over_ranks(flops_of(backward_products_->products()), grid.world())) {
  make_parameters();
  const std::size_t lanes = size(shape_.tiling.local_lanes()), rows = lanes * size(shape_.max_time_steps);
  const std::size_t hidden = size(shape_.hidden), blocks = size(shape_.tiling.blocks.count);
  const std::size_t own = size(shape_.tiling.blocks.local);
  input_ = random(rows * size(shape_.inputs), -1, 1);
  h_ = random(lanes * hidden, -1, 1);
  c_ = random(lanes * hidden / blocks * own, -1, 1);
  d_output_ = random(rows * hidden / blocks * own, -1, 1);
  output_ = backend.allocate(rows * hidden);
  h_last_ = backend.allocate(h_.size());
  c_last_ = backend.allocate(c_.size());
  d_input_ = backend.allocate(rows * size(shape_.inputs) / blocks * own);
  pack();
}

/// The first ones are drawn and repeated: a GPU's layers are so large that drawing would take longer than
/// running.
Buffer<float> MeasuredLayer::random(std::size_t count, float low, float high) {
  constexpr std::size_t kDrawn = std::size_t{1} << 22;
  const RandomStream stream(1, "benchmark");
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = i < kDrawn ? low + (high - low) * stream.uniform(drawn_, i) : values[i - kDrawn];
  ++drawn_;
  Buffer<float> buffer = backend_.allocate(count);
  backend_.to_device(values, buffer.view());
  return buffer;
}

void MeasuredLayer::make_parameters() {
  const std::size_t own = size(shape_.hidden / shape_.tiling.blocks.count) * size(shape_.tiling.blocks.local);
  const std::size_t normalized = shape_.normalization == Normalization::layer ? own : 0;
  const float bound = 1 / std::sqrt(static_cast<float>(shape_.hidden));
  const struct {
    std::size_t size;
    float low, high;
  } parameters[] = {{4 * own * size(shape_.inputs), -bound, bound},
                    {4 * own * size(shape_.hidden), -bound, bound},
                    {4 * normalized, 0.5f, 1.5f},
                    {4 * normalized, 0.5f, 1.5f},
                    {4 * own, -bound, bound},
                    {normalized, 0.5f, 1.5f},
                    {normalized, -bound, bound}};
  for (const auto& parameter : parameters) {
    values_.push_back(random(parameter.size, parameter.low, parameter.high));
    gradients_.push_back(backend_.allocate(parameter.size));
  }
}

LstmParameters<const float> MeasuredLayer::parameters() const {
  const auto& v = values_;
  return {v[0].view(), v[1].view(), v[2].view(), v[3].view(), v[4].view(), v[5].view(), v[6].view()};
}

LstmParameters<float> MeasuredLayer::gradients() {
  auto& g = gradients_;
  return {g[0].view(), g[1].view(), g[2].view(), g[3].view(), g[4].view(), g[5].view(), g[6].view()};
}

void MeasuredLayer::forward() {
  layer_->forward({.time_steps = shape_.max_time_steps,
                   .input = input_.view(),
                   .h_first = h_.view(),
                   .c_first = c_.view(),
                   .lengths = {},
                   .output = output_.view(),
                   .h_last = h_last_.view(),
                   .c_last = c_last_.view()});
}

void MeasuredLayer::backward() { layer_->backward({d_output_.view(), d_input_.view(), gradients()}); }

template <class Work>
double MeasuredLayer::seconds_of(const Work& work) {
  return lamina::seconds_of(grid_.world(), backend_, work);
}

void MeasuredLayer::warm_up() {
  forward();
  backward();
  forward_products_->run();
  backward_products_->run();
}

void MeasuredLayer::measure() {
  const auto record = [](double forward, double backward, auto& forwards, auto& backwards, auto& both) {
    forwards.push_back(forward);
    backwards.push_back(backward);
    both.push_back(forward + backward);
  };
  if (times_.both.empty()) warm_up();  // a device may record the second run, to replay it from the third on
  times_.packing.push_back(seconds_of([&] { pack(); }));
  warm_up();
  const double layer_forward = seconds_of([&] { forward(); });
  const double layer_backward = seconds_of([&] { backward(); });
  record(layer_forward, layer_backward, times_.forward, times_.backward, times_.both);
  const double products_forward = seconds_of([&] { forward_products_->run(); });
  const double products_backward = seconds_of([&] { backward_products_->run(); });
  record(products_forward, products_backward, times_.products_forward, times_.products_backward,
         times_.products_both);
}

}  // namespace lamina
