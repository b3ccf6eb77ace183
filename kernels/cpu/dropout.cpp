#include "kernels/cpu/dropout.h"

#include <algorithm>
#include <array>

#include "kernels/cpu/parallel.h"
#include "runtime/error.h"

namespace lamina::dropout {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

// Factors of `count` elements from `first_index` on: 0 or 1 / (1 - p). Four draws share a Philox block.
void draw_factors(const DropoutMask& mask, std::uint64_t first_index, std::span<float> factors) {
  const float kept = 1 / (1 - mask.probability);
  for (std::size_t i = 0; i < factors.size();) {
    const std::uint64_t index = first_index + i;
    const PhiloxBlock draws = mask.stream->bits(mask.step, index / 4);
    for (std::size_t word = index % 4; word < 4 && i < factors.size(); ++word, ++i)
      factors[i] = to_unit_interval(draws[word]) >= mask.probability ? kept : 0;
  }
}

struct Place {
  std::size_t group, row;         ///< of the lane, on this rank
  std::size_t first_time, times;  ///< time steps that share the factors
};

/// Some of the time steps of a mask.
struct Times {
  std::size_t first, count;

  static Times all(const DropoutMask& mask) { return {0, size(mask.time_steps)}; }
};

/// Units side by side, cut into blocks.
struct Units {
  std::size_t first, blocks, width;
};

// use(place, block, unit, factors) for all lanes and those time steps; factors: of a few units of a block,
// from `unit` on.
template <class Use>
void for_mask_rows(int threads, const DropoutMask& mask, const Times& times, const Units& units,
                   const Use& use) {
  const std::size_t rows = size(mask.tiling.rows), steps = size(mask.time_steps);
  parallel_for(threads, size(mask.tiling.local_lanes()), [&](std::size_t lane) {
    std::array<float, 256> memory;
    const std::size_t together = mask.variational ? times.count : 1;
    for (std::size_t t = times.first; t < times.first + times.count; t += together) {
      const std::size_t row = (size(mask.tiling.first_lane()) + lane) * steps + (mask.variational ? 0 : t);
      for (std::size_t k = 0; k < units.blocks; ++k)
        for (std::size_t unit = 0; unit < units.width; unit += memory.size()) {
          const std::span<float> factors =
              std::span(memory).first(std::min(memory.size(), units.width - unit));
          draw_factors(mask, row * size(mask.width) + units.first + k * units.width + unit, factors);
          use(Place{lane / rows, lane % rows, t, together}, k, unit, factors);
        }
    }
  });
}

void check_mask(const DropoutMask& mask, std::size_t elements, int width) {
  check(mask.stream != nullptr, "dropout: no random stream");
  check(mask.probability >= 0 && mask.probability < 1, "dropout: probability must be in [0, 1)");
  check(elements == size(mask.tiling.local_lanes()) * size(mask.time_steps) * size(width),
        "dropout: size does not fit the mask");
}

void forward_over(const Times& times, int threads, const DropoutMask& mask, std::span<const float> x,
                  std::span<float> out) {
  check_mask(mask, x.size(), mask.width);
  check(out.size() == x.size(), "dropout: sizes differ");
  const std::size_t rows = size(mask.tiling.rows), steps = size(mask.time_steps), width = size(mask.width);
  const auto apply = [&](const Place& place, std::size_t, std::size_t unit, std::span<const float> factors) {
    for (std::size_t t = place.first_time; t < place.first_time + place.times; ++t) {
      const std::size_t at = ((place.group * steps + t) * rows + place.row) * width + unit;
      for (std::size_t j = 0; j < factors.size(); ++j) out[at + j] = x[at + j] * factors[j];
    }
  };
  for_mask_rows(threads, mask, times, {0, 1, width}, apply);
}

void backward_over(const Times& times, int threads, const DropoutMask& mask, const Share& blocks,
                   std::span<float> dx) {
  check(mask.width % blocks.count == 0, "dropout: the width must divide into blocks");
  const int block_width = mask.width / blocks.count;
  check_mask(mask, dx.size(), block_width * blocks.local);
  const std::size_t rows = size(mask.tiling.rows), steps = size(mask.time_steps);
  const std::size_t local = size(blocks.local), width = size(block_width);
  const auto apply = [&](const Place& place, std::size_t k, std::size_t unit,
                         std::span<const float> factors) {
    for (std::size_t t = place.first_time; t < place.first_time + place.times; ++t) {
      const std::size_t row = ((place.group * local + k) * steps + t) * rows + place.row;
      for (std::size_t j = 0; j < factors.size(); ++j) dx[row * width + unit + j] *= factors[j];
    }
  };
  for_mask_rows(threads, mask, times, {size(blocks.first) * width, local, width}, apply);
}

}  // namespace

void forward(int threads, const DropoutMask& mask, std::span<const float> x, std::span<float> out) {
  forward_over(Times::all(mask), threads, mask, x, out);
}

void backward(int threads, const DropoutMask& mask, std::span<float> dx) {
  backward_over(Times::all(mask), threads, mask, mask.tiling.blocks, dx);
}

void forward_at(int threads, const DropoutMask& mask, int t, std::span<const float> x, std::span<float> out) {
  forward_over({size(t), 1}, threads, mask, x, out);
}

void backward_at(int threads, const DropoutMask& mask, int t, const Share& blocks, std::span<float> dx) {
  backward_over({size(t), 1}, threads, mask, blocks, dx);
}

}  // namespace lamina::dropout
