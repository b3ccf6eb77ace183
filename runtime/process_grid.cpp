#include "runtime/process_grid.h"

#include <fmt/format.h>

#include <bit>
#include <cstdint>

namespace lamina {
namespace {

/// Sizes of a grid; 64 bits wide, so that products of settings cannot overflow.
struct Layout {
  std::int64_t data_ranks, model_ranks, lane_groups, unit_blocks, rows;
};

template <class... Parts>
void require(bool condition, fmt::format_string<Parts...> sentence, Parts&&... parts) {
  if (!condition) throw UserError(fmt::format(sentence, std::forward<Parts>(parts)...));
}

void require_power_of_two(const char* flag, std::int64_t value) {
  require(value >= 1 && std::has_single_bit(static_cast<std::uint64_t>(value)),
          "--{} {} cannot be used: it must be a power of two (1, 2, 4, 8, …)", flag, value);
}

std::int64_t data_ranks(std::int64_t ranks, std::int64_t model_parallel) {
  require(ranks % model_parallel == 0,
          "{} ranks cannot be laid out as a data x model grid with --model-parallel {}: use a multiple of {} "
          "ranks",
          ranks, model_parallel, model_parallel);
  const std::int64_t data = ranks / model_parallel;
  require(std::has_single_bit(static_cast<std::uint64_t>(data)),
          "{} ranks with --model-parallel {} make a data axis of {}, which is not a power of two: use {} or "
          "{} ranks",
          ranks, model_parallel, data,
          model_parallel * static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(data))),
          model_parallel * static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(data))));
  return data;
}

std::int64_t lane_groups(const GridSettings& settings, std::int64_t data) {
  const std::int64_t shares = data * settings.passes;
  if (settings.lane_groups == 0) return shares;
  require_power_of_two("lane-groups", settings.lane_groups);
  require(settings.lane_groups % shares == 0,
          "--lane-groups {} cannot be split over {} data ranks x {} passes: use a multiple of {}",
          settings.lane_groups, data, settings.passes, shares);
  return settings.lane_groups;
}

Layout lay_out(int ranks, const GridSettings& settings, int batch) {
  require(batch >= 1, "--batch {} cannot be used: it must be 1 or more", batch);
  require_power_of_two("model-parallel", settings.model_parallel);
  require_power_of_two("unit-blocks", settings.unit_blocks);
  require_power_of_two("passes", settings.passes);
  require(settings.unit_blocks % settings.model_parallel == 0,
          "--unit-blocks {} cannot be split over --model-parallel {}: use at least {} unit blocks",
          settings.unit_blocks, settings.model_parallel, settings.model_parallel);
  const std::int64_t data = data_ranks(ranks, settings.model_parallel);
  const std::int64_t groups = lane_groups(settings, data);
  require(batch % groups == 0, "--batch {} cannot be split into {} lane groups: use a multiple of {}", batch,
          groups, groups);
  return {data, settings.model_parallel, groups, settings.unit_blocks, batch / groups};
}

}  // namespace

void require_layout(int ranks, const GridSettings& settings, int batch) { lay_out(ranks, settings, batch); }

ProcessGrid::ProcessGrid(Communicator& world, const GridSettings& settings, int batch)
    : world_(world), passes_(settings.passes) {
  const Layout layout = lay_out(world.size(), settings, batch);
  const int model_ranks = static_cast<int>(layout.model_ranks);
  const int data_rank = world.rank() / model_ranks, model_rank = world.rank() % model_ranks;
  data_ = world.split(model_rank, data_rank, "data axis");
  model_ = world.split(data_rank, model_rank, "model axis");
  tiling_ = {.groups = Share::of(static_cast<int>(layout.lane_groups), data_rank,
                                 static_cast<int>(layout.data_ranks)),
             .blocks = Share::of(static_cast<int>(layout.unit_blocks), model_rank, model_ranks),
             .rows = static_cast<int>(layout.rows)};
}

}  // namespace lamina
