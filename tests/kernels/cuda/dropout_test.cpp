// ctest: labels=unit,gpu timeout=120
#include <gtest/gtest.h>

#include <vector>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/support/close.h"
#include "tests/support/device_tensor.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

using reference::SequenceLayout;
using Floats = std::vector<float>;

const RandomStream kStream(5, "dropout/lstm0");

struct Case {
  int groups = 4, rows = 3, blocks = 8, time_steps = 5, width = 24;
  float probability = 0.25f;
  bool variational = true;
  std::uint64_t step = 9;

  /// Of rank (data_rank, model_rank) in a grid of data x model ranks.
  DropoutMask mask(int data = 1, int data_rank = 0, int model = 1, int model_rank = 0) const {
    return {.stream = &kStream,
            .step = step,
            .probability = probability,
            .variational = variational,
            .time_steps = time_steps,
            .width = width,
            .tiling = {Share::of(groups, data_rank, data), Share::of(blocks, model_rank, model), rows}};
  }
};

// Rows that begin anywhere in a block of four draws, rows shorter than one, and the step's upper half.
const std::vector<Case> kCases = {
    {},
    {.variational = false},
    {.groups = 1, .rows = 1, .blocks = 1, .time_steps = 1, .width = 1},
    {.groups = 2, .rows = 1, .blocks = 2, .time_steps = 5, .width = 10, .probability = 0.5f},
    {.groups = 2, .rows = 3, .blocks = 2, .time_steps = 5, .width = 10, .variational = false},
    {.groups = 2, .rows = 3, .blocks = 8, .time_steps = 3, .width = 56, .step = std::uint64_t{5} << 33},
    {.groups = 2, .rows = 3, .blocks = 1, .time_steps = 5, .width = 7, .variational = false},
    {.probability = 0},
};

SequenceLayout layout_of(const DropoutMask& mask) { return {mask.tiling, mask.time_steps, mask.width}; }

Floats forward(Backend& backend, const DropoutMask& mask, bool in_place) {
  DeviceTensor x(backend, random_values("x", layout_of(mask).full_size())), out(backend, x.view().size());
  backend.dropout_forward(mask, x.view(), in_place ? x.view() : out.view());
  return (in_place ? x : out).host();
}

Floats backward(Backend& backend, const DropoutMask& mask) {
  DeviceTensor dx(backend, random_values("dx", layout_of(mask).blocked_size()));
  backend.dropout_backward(mask, dx.view());
  return dx.host();
}

TEST(CudaDropout, HasTheBitsOfTheCpuOnEveryGrid) {
  const auto cuda = make_cuda_backend(0), cpu = make_cpu_backend(1);
  for (const Case& given : kCases)
    for (const auto& [data, model] : {std::pair(1, 1), {1, 8}, {2, 4}, {4, 1}}) {
      if (given.groups % data != 0 || given.blocks % model != 0) continue;
      SCOPED_TRACE(std::to_string(given.width) + " units, " + std::to_string(data) + " x " +
                   std::to_string(model));
      const DropoutMask mask = given.mask(data, data - 1, model, model / 2);

      EXPECT_TRUE(same_bits(forward(*cuda, mask, false), forward(*cpu, mask, false)));
      EXPECT_TRUE(same_bits(forward(*cuda, mask, true), forward(*cpu, mask, false)));
      EXPECT_TRUE(same_bits(backward(*cuda, mask), backward(*cpu, mask)));
    }
}

TEST(CudaDropout, RefusesWhatDoesNotFit) {
  const auto cuda = make_cuda_backend(0);
  const DropoutMask mask = Case{}.mask(), certain = Case{.probability = 1}.mask();
  DeviceTensor right(*cuda, layout_of(mask).full_size()), wrong(*cuda, layout_of(mask).full_size() - 1);

  EXPECT_THROW(cuda->dropout_forward(mask, wrong.view(), wrong.view()), InternalError);
  EXPECT_THROW(cuda->dropout_forward(mask, right.view(), wrong.view()), InternalError);
  EXPECT_THROW(cuda->dropout_backward(mask, wrong.view()), InternalError);
  EXPECT_THROW(cuda->dropout_forward(certain, right.view(), right.view()), InternalError);
}

}  // namespace
}  // namespace lamina::test
