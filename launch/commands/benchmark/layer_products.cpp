#include "launch/commands/benchmark/layer_products.h"

#include <algorithm>

namespace lamina {
namespace {

std::int64_t share_of(std::int64_t width, const Share& blocks) { return width * blocks.local / blocks.count; }

}  // namespace

LayerProducts products_of_lstm(int inputs, int hidden, int time_steps, const Tiling& tiling,
                               int different_inputs) {
  const std::int64_t gates = share_of(4 * std::int64_t{hidden}, tiling.blocks);
  const std::int64_t rows = tiling.local_lanes(), all = rows * time_steps;
  const std::int64_t of_input = different_inputs == 0 ? all : std::min<std::int64_t>(all, different_inputs);
  return {.forward = {{.m = of_input, .n = gates, .k = inputs},                        // W_x x
                      {.m = rows, .n = gates, .k = hidden, .count = time_steps}},      // W_h h
          .backward = {{.m = rows, .n = hidden, .k = gates, .count = time_steps - 1},  // W_h^T da_h
                       {.m = of_input, .n = inputs, .k = gates},                       // W_x^T da_x
                       {.m = gates, .n = hidden, .k = all},                            // da_h^T h
                       {.m = gates, .n = inputs, .k = of_input}}};                     // da_x^T x
}

LayerProducts products_of_output(int hidden, int classes, int time_steps, const Tiling& tiling) {
  const std::int64_t width = std::max<std::int64_t>(1, share_of(classes, tiling.blocks));
  const std::int64_t rows = std::int64_t{tiling.local_lanes()} * time_steps;
  return {.forward = {{.m = rows, .n = width, .k = hidden}},
          .backward = {{.m = rows, .n = hidden, .k = width}, {.m = width, .n = hidden, .k = rows}}};
}

}  // namespace lamina
