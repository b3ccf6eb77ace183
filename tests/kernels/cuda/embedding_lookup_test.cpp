// ctest: labels=unit,gpu timeout=120
#include <gtest/gtest.h>

#include <vector>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/device_tensor.h"
#include "tests/support/layer_cases.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

Tensors on(const LayerSizes& sizes, const RunChoices& choices) {
  const auto layer = make_embedding_case(sizes);
  return run(*layer, layer->inputs(), choices);
}

TEST(CudaEmbeddingLookup, HasTheBitsOfTheCpu) {
  for (const LayerSizes& sizes : std::vector<LayerSizes>{
           {.hidden = 24, .classes = 63},
           {.time_steps = 1, .groups = 1, .rows = 1, .blocks = 8, .hidden = 8, .classes = 1},
           {.time_steps = 2, .groups = 2, .rows = 1, .blocks = 2, .hidden = 6, .classes = 200},
           {.time_steps = 7, .groups = 8, .rows = 5, .blocks = 2, .hidden = 70, .classes = 4},
           {.time_steps = 7, .groups = 1, .rows = 5, .blocks = 1, .hidden = 33, .classes = 4}}) {
    SCOPED_TRACE(std::to_string(sizes.classes) + " tokens");
    const Tensors cpu = on(sizes, {});

    for (const int ranks : {1, 2}) {
      if (ranks > sizes.blocks) continue;
      const Tensors cuda = on(sizes, {.model_ranks = ranks, .make_backend = make_cuda_backend});
      for (const auto& [name, values] : cpu) EXPECT_TRUE(same_bits(cuda.at(name), values)) << name;
    }
  }
}

TEST(CudaEmbeddingLookup, RefusesWhatDoesNotFit) {
  const auto cuda = make_cuda_backend(0);
  const auto self = make_self_communicator();
  const auto lookup = cuda->make_embedding_lookup(
      {.vocabulary = 3, .width = 2, .max_time_steps = 2, .tiling = {.groups = {}, .blocks = {}, .rows = 2}},
      *self);
  DeviceTensor table(*cuda, 6), output(*cuda, 8), more(*cuda, 12);

  for (const std::int32_t token : {-1, 3})
    EXPECT_THROW(lookup->forward(2, table.view(), std::vector<std::int32_t>{0, 1, 2, token}, output.view()),
                 InternalError);
  const std::vector<std::int32_t> four(4), six(6);
  EXPECT_THROW(lookup->forward(1, table.view(), four, output.view()), InternalError);
  EXPECT_THROW(lookup->forward(3, table.view(), six, more.view()), InternalError);
  EXPECT_THROW(lookup->forward(2, table.view(), four, more.view()), InternalError);
  EXPECT_THROW(lookup->backward(2, more.view(), four, table.view()), InternalError);
  EXPECT_THROW(lookup->backward(2, output.view(), four, more.view()), InternalError);
}

}  // namespace
}  // namespace lamina::test
