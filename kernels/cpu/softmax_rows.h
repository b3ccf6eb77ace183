// Softmax on one row of logits, vectorized. Sums run in an order that depends on the length of the row only
// (and on the width of the machine's vectors).
#pragma once

#include <span>

namespace lamina::softmax_rows {

/// logits += bias; the largest of them, -infinity of an empty row.
float add_bias(std::span<const float> bias, std::span<float> logits);

/// Sum of exp(logit - max). A logit that is not a number makes the sum one.
float sum_exp(std::span<const float> logits, float max);

/// out = factor * exp(logit - max)
void scaled_exp(std::span<const float> logits, float max, float factor, std::span<float> out);

}  // namespace lamina::softmax_rows
