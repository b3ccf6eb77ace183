#include "launch/evaluate.h"

#include <optional>
#include <vector>

#include "runtime/tree.h"

namespace lamina {
namespace {

/// Part of `values` [D, width] that belongs to the groups [first, first + groups).
template <class T>
std::span<const T> groups_of(const std::vector<T>& values, std::size_t width, std::size_t first,
                             std::size_t groups) {
  if (values.empty()) return {};
  return std::span<const T>(values).subspan(first * width, groups * width);
}

/// Adds the losses of one chunk to `sums`, one per lane group of this rank, pass by pass.
void add_chunk(LanguageModel& model, const LaneBatch& batch, CarriedState& state, int passes,
               std::vector<double>& sums) {
  const std::size_t groups = sums.size() / static_cast<std::size_t>(passes);
  const auto rows = static_cast<std::size_t>(state.tiling().rows);
  const std::size_t width = static_cast<std::size_t>(batch.time_steps) * rows;
  std::vector<double> losses(groups);
  for (std::size_t first = 0; first < sums.size(); first += groups) {
    const Sequences sequences{batch.time_steps, groups_of(batch.tokens, width, first, groups),
                              groups_of(batch.targets, width, first, groups),
                              groups_of(batch.lengths, rows, first, groups)};
    model.forward(sequences, state, static_cast<int>(first), /*dropout_step=*/std::nullopt);
    model.losses(losses);
    for (std::size_t g = 0; g < groups; ++g) sums[first + g] += losses[g];
  }
}

/// The sum over the lane groups of the whole run, in the fixed tree order.
double sum_over_groups(const std::vector<double>& local, ProcessGrid& grid) {
  std::vector<double> all(static_cast<std::size_t>(grid.tiling().groups.count));
  grid.data().all_gather(std::span<const double>(local), std::span<double>(all));
  return tree_sum(all.size(), [&](std::size_t g) { return all[g]; });
}

}  // namespace

EvaluationResult evaluate_text(LanguageModel& model, const EvaluationLanes& lanes, Backend& backend,
                               ProcessGrid& grid, int time_steps) {
  const Tiling& tiling = grid.tiling();
  CarriedState state(backend, model.settings().layers, model.settings().hidden, tiling);
  std::vector<double> sums(static_cast<std::size_t>(tiling.groups.local), 0.0);
  LaneBatch batch;
  for (std::int64_t chunk = 0; chunk < lanes.chunks(); ++chunk) {
    lanes.fetch(chunk, tiling, batch);
    check(batch.time_steps <= time_steps,
          "evaluate_text: the chunks of the lanes are longer than time_steps");
    add_chunk(model, batch, state, grid.passes(), sums);
  }
  const std::int64_t predictions = lanes.predictions();
  return {sum_over_groups(sums, grid) / static_cast<double>(predictions), predictions};
}

}  // namespace lamina
