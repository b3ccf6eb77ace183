#include "kernels/cpu/input_terms.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/input_terms.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_normalization-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

// With what lstm_cell.cpp uses on a gate's x side: a gate has the same bits either way.
void normalized_terms(const NormalizedInput& input, const float* bias, float* terms) {
  for (std::size_t row = 0; row < input.rows; ++row) {
    const RowNormalization normalization(input.of, row);
    const std::size_t first = row * input.width;
    for_each_vector(input.width, [&](auto lanes, std::size_t j) HWY_ATTR {
      const std::size_t i = first + j;
      lanes.store(normalization.term(lanes, input.a + i, input.gain + j, lanes.load(bias + j)), terms + i);
    });
  }
}

void plain_terms(std::size_t rows, std::size_t width, const float* a, const float* bias, float* terms) {
  for (std::size_t row = 0; row < rows; ++row, a += width, terms += width)
    for_each_vector(width, [&](auto lanes, std::size_t j) HWY_ATTR {
      lanes.store(hn::Add(lanes.load(a + j), lanes.load(bias + j)), terms + j);
    });
}

void normalized_sums(const NormalizedInput& input, const float* dz, const NormalizationSums& sums) {
  for (std::size_t row = 0; row < input.rows; ++row) {
    SideSums of_row(input.of, row);
    const std::size_t first = row * input.width;
    for_each_vector(input.width, [&](auto lanes, std::size_t j) HWY_ATTR {
      const Vector dz_of_row = lanes.only(lanes.load(dz + first + j));
      of_row.add(dz_of_row, lanes.load(input.gain + j), lanes.load(input.a + first + j));
    });
    of_row.store(sums, row);
  }
}

void normalized_backward(const NormalizedInput& input, const float* mean_dn, const float* mean_dn_n,
                         float* dz, float* d_gain, float* d_bias) {
  std::fill_n(d_gain, input.width, 0.0f);
  std::fill_n(d_bias, input.width, 0.0f);
  for (std::size_t row = 0; row < input.rows; ++row) {
    const RowBackward backward(input.of, mean_dn, mean_dn_n, row);
    const std::size_t first = row * input.width;
    for_each_vector(input.width, [&](auto lanes, std::size_t j) HWY_ATTR {
      float* at = dz + first + j;
      const Vector d_z = lanes.load(at);
      add_to(lanes, d_bias + j, d_z);
      backward.run(lanes, d_z, input.a + first + j, input.gain + j, d_gain + j, at);
    });
  }
}

void plain_backward(std::size_t rows, std::size_t width, const float* dz, float* d_bias) {
  std::fill_n(d_bias, width, 0.0f);
  for (std::size_t row = 0; row < rows; ++row, dz += width)
    for_each_vector(
        width, [&](auto lanes, std::size_t j) HWY_ATTR { add_to(lanes, d_bias + j, lanes.load(dz + j)); });
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina {

HWY_EXPORT(normalized_terms);
HWY_EXPORT(plain_terms);
HWY_EXPORT(normalized_sums);
HWY_EXPORT(normalized_backward);
HWY_EXPORT(plain_backward);

void input_terms(const NormalizedInput& input, const float* bias, float* terms) {
  HWY_DYNAMIC_DISPATCH(normalized_terms)(input, bias, terms);
}

void input_terms(std::size_t rows, std::size_t width, const float* a, const float* bias, float* terms) {
  HWY_DYNAMIC_DISPATCH(plain_terms)(rows, width, a, bias, terms);
}

void input_sums(const NormalizedInput& input, const float* dz, const NormalizationSums& sums) {
  HWY_DYNAMIC_DISPATCH(normalized_sums)(input, dz, sums);
}

void input_backward(const NormalizedInput& input, const float* mean_dn, const float* mean_dn_n, float* dz,
                    float* d_gain, float* d_bias) {
  HWY_DYNAMIC_DISPATCH(normalized_backward)(input, mean_dn, mean_dn_n, dz, d_gain, d_bias);
}

void input_backward(std::size_t rows, std::size_t width, const float* dz, float* d_bias) {
  HWY_DYNAMIC_DISPATCH(plain_backward)(rows, width, dz, d_bias);
}

}  // namespace lamina
#endif
