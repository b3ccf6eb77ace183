// ctest: labels=unit,gpu timeout=900
// What every layer must do, on the CUDA backend.
#include "tests/support/layer_conformance.h"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "kernels/backends.h"

namespace lamina::test {
namespace {

/// Rows of a block that a warp takes in one turn and in several.
const std::vector<LayerSizes> kSizes = {
    {.time_steps = 3, .groups = 4, .rows = 2, .blocks = 8, .inputs = 24, .hidden = 88, .classes = 70},
    {.time_steps = 2, .groups = 4, .rows = 1, .blocks = 8, .inputs = 8, .hidden = 272, .classes = 3},
};

std::vector<LayerKind> kinds_of_gpus(std::vector<LayerKind> kinds) {
  std::erase_if(kinds, [](const LayerKind& kind) { return kind.of_cpus; });
  return kinds;
}

class CudaLayerConformance : public ::testing::TestWithParam<std::tuple<LayerKind, LayerCheck>> {};

TEST_P(CudaLayerConformance, Holds) {
  const auto& [kind, check] = GetParam();
  check.run(
      kind,
      {.make_backend = make_cuda_backend, .sizes = kSizes, .may_cross_ties = kind.name.starts_with("Bf16")});
}

INSTANTIATE_TEST_SUITE_P(Layers, CudaLayerConformance,
                         ::testing::Combine(::testing::ValuesIn(kinds_of_gpus(layer_kinds())),
                                            ::testing::ValuesIn(layer_checks())),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param).name + "_" + std::get<1>(chosen.param).name;
                         });

INSTANTIATE_TEST_SUITE_P(Bf16Layers, CudaLayerConformance,
                         ::testing::Combine(::testing::ValuesIn(kinds_of_gpus(bf16_layer_kinds())),
                                            ::testing::ValuesIn(bf16_layer_checks())),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param).name + "_" + std::get<1>(chosen.param).name;
                         });

}  // namespace
}  // namespace lamina::test
