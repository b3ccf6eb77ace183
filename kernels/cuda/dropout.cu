// A thread draws one Philox block, four neighbours of a mask's row, and uses it for all time steps that share
// the mask. Rows begin anywhere in a block.
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "runtime/error.h"
#include "runtime/philox.h"

namespace lamina::cuda::dropout {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

/// A mask over the units [first_unit, first_unit + blocks * width) of [D, blocks, T, R, width].
struct MaskedUnits {
  PhiloxKey key;
  std::uint64_t step;
  float probability, kept;              ///< kept elements are multiplied by `kept`
  std::size_t masks, times;             ///< masks of a lane, and the time steps that share one
  std::size_t lanes, first_lane, rows;  ///< R rows in a group
  std::size_t units, first_unit;        ///< H, and the first of ours
  std::size_t blocks, width;

  std::size_t own_units() const { return blocks * width; }
  /// Philox blocks that a row may meet.
  std::size_t draws_of_row() const { return (own_units() + 6) / 4; }
};

__global__ void multiply_by_mask(MaskedUnits mask, std::size_t draws_of_row, const float* x, float* out) {
  const std::size_t steps = mask.masks * mask.times, own_units = mask.blocks * mask.width;
  const std::size_t count = mask.lanes * mask.masks * draws_of_row;
  for (std::size_t item = first_element(); item < count; item += element_stride()) {
    const std::size_t row = item / draws_of_row, lane = row / mask.masks, first_time = row % mask.masks;
    const std::uint64_t first =
        ((mask.first_lane + lane) * steps + first_time) * mask.units + mask.first_unit;
    const std::uint64_t index = first / 4 + item % draws_of_row;
    const PhiloxBlock draws = philox(mask.key, mask.step, index);
    for (std::size_t word = 0; word < 4; ++word) {
      const std::size_t unit = index * 4 + word - first;  // wraps around before the row
      if (unit >= own_units) continue;
      const float factor = to_unit_interval(draws[word]) >= mask.probability ? mask.kept : 0;
      const std::size_t block = lane / mask.rows * mask.blocks + unit / mask.width;
      for (std::size_t t = first_time; t < first_time + mask.times; ++t) {
        const std::size_t at =
            ((block * steps + t) * mask.rows + lane % mask.rows) * mask.width + unit % mask.width;
        out[at] = x[at] * factor;
      }
    }
  }
}

void apply(Device& device, const DropoutMask& mask, int blocks, int first_block, int width,
           std::span<const float> x, float* out) {
  check(mask.stream != nullptr, "dropout: no random stream");
  check(mask.probability >= 0 && mask.probability < 1, "dropout: probability must be in [0, 1)");
  const MaskedUnits units{.key = mask.stream->key(),
                          .step = mask.step,
                          .probability = mask.probability,
                          .kept = 1 / (1 - mask.probability),
                          .masks = mask.variational ? 1 : size(mask.time_steps),
                          .times = mask.variational ? size(mask.time_steps) : 1,
                          .lanes = size(mask.tiling.local_lanes()),
                          .first_lane = size(mask.tiling.first_lane()),
                          .rows = size(mask.tiling.rows),
                          .units = size(mask.width),
                          .first_unit = size(first_block) * size(width),
                          .blocks = size(blocks),
                          .width = size(width)};
  check(x.size() == units.lanes * size(mask.time_steps) * units.own_units(),
        "dropout: size does not fit the mask");
  launch(device, multiply_by_mask, for_elements(units.lanes * units.masks * units.draws_of_row()), units,
         units.draws_of_row(), x.data(), out);
}

}  // namespace

void forward(Device& device, const DropoutMask& mask, std::span<const float> x, std::span<float> out) {
  check(out.size() == x.size(), "dropout: sizes differ");
  apply(device, mask, 1, 0, mask.width, x, out.data());
}

void backward(Device& device, const DropoutMask& mask, std::span<float> dx) {
  const Share& blocks = mask.tiling.blocks;
  check(mask.width % blocks.count == 0, "dropout: the width must divide into blocks");
  apply(device, mask, blocks.local, blocks.first, mask.width / blocks.count, dx, dx.data());
}

}  // namespace lamina::cuda::dropout
