// The matrix products that a model cannot do without, each as one large product of this rank: what they take
// alone is the limit of a layer's speed.
#pragma once

#include <vector>

#include "runtime/product_series.h"
#include "runtime/tiling.h"

namespace lamina {

struct LayerProducts {
  std::vector<Product> forward, backward;
};

/// Of a recurrent layer of `hidden` units over `time_steps`, its share of `tiling`; the gradient of its input
/// included. `different_inputs`: how many different vectors its input can have, 0 for any number.
LayerProducts products_of_lstm(int inputs, int hidden, int time_steps, const Tiling& tiling,
                               int different_inputs = 0);

/// Of the output layer of a language model.
LayerProducts products_of_output(int hidden, int classes, int time_steps, const Tiling& tiling);

}  // namespace lamina
