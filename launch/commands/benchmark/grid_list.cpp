#include "launch/commands/benchmark/grid_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "launch/setting.h"

namespace lamina {
namespace {

constexpr int kMostRanks = 4096;

std::optional<int> number_of(std::string_view text) {
  int number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number = error == std::errc() && stop == text.data() + text.size();
  return is_number && number >= 1 && number <= kMostRanks ? std::optional(number) : std::nullopt;
}

std::optional<Grid> grid_of(std::string_view text) {
  const std::size_t middle = text.find('x');
  if (middle == std::string_view::npos) return std::nullopt;
  const auto data = number_of(text.substr(0, middle)), model = number_of(text.substr(middle + 1));
  return data && model && *data * *model <= kMostRanks ? std::optional(Grid{*data, *model}) : std::nullopt;
}

}  // namespace

std::vector<Grid> grids_of(const std::string& text) {
  std::vector<Grid> grids;
  for (std::size_t first = 0; first <= text.size();) {
    const std::size_t end = std::min(text.find(',', first), text.size());
    const auto grid = grid_of(std::string_view(text).substr(first, end - first));
    require(grid.has_value(),
            fmt::format("--grids must be data x model ranks, {} at most, with commas between, like "
                        "1x1,2x1,1x2, not '{}'",
                        kMostRanks, text));
    require(std::ranges::find(grids, *grid) == grids.end(),
            fmt::format("--grids has {} twice, in '{}'; give it once", grid->text(), text));
    grids.push_back(*grid);
    first = end + 1;
  }
  return grids;
}

std::vector<Grid> grids_up_to(int most) {
  std::vector<Grid> grids;
  for (int ranks = 1; ranks <= most; ranks *= 2)
    for (int model = 1; model <= ranks; model *= 2) grids.push_back({ranks / model, model});
  return grids;
}

}  // namespace lamina
