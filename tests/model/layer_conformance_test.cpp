// What every layer must do, on the CPU backend.
#include "tests/support/layer_conformance.h"

#include <gtest/gtest.h>

#include <tuple>

namespace lamina::test {
namespace {

class LayerConformance : public ::testing::TestWithParam<std::tuple<LayerKind, LayerCheck>> {};

TEST_P(LayerConformance, Holds) {
  const auto& [kind, check] = GetParam();
  check.run(kind, {});
}

std::vector<LayerKind> all_kinds() {
  std::vector<LayerKind> kinds = layer_kinds();
  kinds.insert(kinds.end(), input_table_kinds().begin(), input_table_kinds().end());
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Layers, LayerConformance,
                         ::testing::Combine(::testing::ValuesIn(all_kinds()),
                                            ::testing::ValuesIn(layer_checks())),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param).name + "_" + std::get<1>(chosen.param).name;
                         });

INSTANTIATE_TEST_SUITE_P(Bf16Layers, LayerConformance,
                         ::testing::Combine(::testing::ValuesIn(bf16_layer_kinds()),
                                            ::testing::ValuesIn(bf16_layer_checks())),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param).name + "_" + std::get<1>(chosen.param).name;
                         });

class EveryLayer : public ::testing::TestWithParam<LayerKind> {};

TEST_P(EveryLayer, HasTheSameBitsOnEveryThreadCount) {
  for_each_size(GetParam(), layer_sizes(), [](const LayerCase& layer, const Tensors& in) {
    const Tensors one = run(layer, in);

    expect_same_bits(one, run(layer, in, {.threads = 3}));
    expect_same_bits(one, run(layer, in, {.model_ranks = 2, .threads = 2}));
  });
}

INSTANTIATE_TEST_SUITE_P(Layers, EveryLayer, ::testing::ValuesIn(all_kinds()),
                         [](const auto& chosen) { return chosen.param.name; });
INSTANTIATE_TEST_SUITE_P(Bf16Layers, EveryLayer, ::testing::ValuesIn(bf16_layer_kinds()),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace lamina::test
