#include "model/lstm_layer.h"

#include <cmath>

namespace lamina {

LstmLayer::LstmLayer(const std::string& name, const RecurrenceShape& shape, ParameterTable& table,
                     Backend& backend, Communicator& model_axis, int inputs)
    : recurrence_(backend.make_recurrence(shape, model_axis)) {
  const std::int64_t H = shape.hidden, I = shape.inputs;
  const Share blocks = shape.tiling.blocks;
  const auto by_unit = [&](std::int64_t gates, std::int64_t width) {
    return BlockedShape{gates, H, width, blocks.count};
  };
  const auto matrix = [&](const char* part, std::int64_t width) {
    const Initializer draw = Initializer::uniform(1 / std::sqrt(static_cast<float>(H)));
    return table.add(name + part, {4 * H, width}, by_unit(4, width), blocks, draw, /*decay=*/true);
  };
  const auto vector = [&](const char* part, std::int64_t gates, float value) {
    return table.add(name + part, {gates * H}, by_unit(gates, 1), blocks, Initializer::constant(value),
                     /*decay=*/false);
  };

  index_.inputs = inputs;
  index_.W_x = matrix("/W_x", I);
  index_.W_h = matrix("/W_h", H);
  index_.bias = vector("/bias", 4, 0);
  parameters_ = {index_.W_x, index_.bias + 1};
  if (shape.normalization == Normalization::none) return;
  index_.gain_x = vector("/gain_x", 4, 1);
  index_.gain_h = vector("/gain_h", 4, 1);
  index_.gain_c = vector("/gain_c", 1, 1);
  index_.bias_c = vector("/bias_c", 1, 0);
  parameters_.last = index_.bias_c + 1;
}

template <class T, class View>
LstmParameters<T> LstmLayer::views(const View& view) const {
  const auto of = [&](int index) { return index < 0 ? std::span<T>() : std::span<T>(view(index)); };
  return {of(index_.W_x),  of(index_.W_h),    of(index_.gain_x), of(index_.gain_h),
          of(index_.bias), of(index_.gain_c), of(index_.bias_c), of(index_.inputs)};
}

void LstmLayer::parameters_changed(const ParameterTable& table) {
  recurrence_->set_parameters(views<const float>([&](int index) { return table.value(index); }));
}

void LstmLayer::backward(std::span<const float> d_output, std::span<float> d_input, ParameterTable& table,
                         const SideWork& side_work) {
  recurrence_->backward(backward_arguments(d_output, d_input, table, side_work));
}

RecurrenceBackward LstmLayer::backward_arguments(std::span<const float> d_output, std::span<float> d_input,
                                                 ParameterTable& table, const SideWork& side_work) const {
  return {d_output, d_input, views<float>([&](int index) { return table.gradient(index); }), side_work};
}

}  // namespace lamina
