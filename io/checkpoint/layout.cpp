#include "io/checkpoint/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>

#include "runtime/error.h"

namespace lamina {

std::int64_t TensorLayout::box_size(int outer_part, int split_part) const {
  return checkpoint::box_region(*this, outer_part, split_part).size();
}

namespace checkpoint {
namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1} << 48;
constexpr std::int64_t kMaxBoxes = std::int64_t{1} << 20;
constexpr std::size_t kMaxDimensions = 8;

Range part_of(std::int64_t extent, int part, int parts) {
  const std::int64_t width = (extent + parts - 1) / parts;
  const std::int64_t first = std::min(extent, width * part);
  return {first, std::min(extent, first + width) - first};
}

/// The product, or none when it is not positive or beyond `limit`.
std::optional<std::int64_t> product(std::span<const std::int64_t> sizes, std::int64_t limit) {
  std::int64_t total = 1;
  for (const std::int64_t size : sizes) {
    if (size < 1 || size > limit / total) return std::nullopt;
    total *= size;
  }
  return total;
}

/// A dimension of the dataset holds the view's axes [first, last).
struct Axes {
  int first, last;
};

/// Which axes of the view each dimension of the shape holds; none when they do not match up.
std::optional<std::vector<Axes>> match_axes(const TensorLayout& layout) {
  const std::array<std::int64_t, 3> view = {layout.outer, layout.split, layout.inner};
  std::vector<Axes> matched;
  int axis = 0;
  for (const std::int64_t dimension : layout.shape) {
    const int first = axis;
    std::int64_t held = 1;
    while (axis < 3 && held < dimension) held *= view[static_cast<std::size_t>(axis++)];
    if (held != dimension) return std::nullopt;
    matched.push_back({first, axis});
  }
  for (; axis < 3; ++axis)
    if (view[static_cast<std::size_t>(axis)] != 1) return std::nullopt;
  return matched;
}

std::vector<Range> cut(const Range& range, std::int64_t width) {
  std::vector<Range> parts;
  for (std::int64_t at = 0; at < range.count; at += width)
    parts.push_back({range.first + at, std::min(width, range.count - at)});
  return parts;
}

}  // namespace

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t total = 1;
  for (const std::int64_t size : shape) total *= size;
  return total;
}

std::string to_string(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string layout_problem(const TensorLayout& layout) {
  const std::array<std::int64_t, 3> view = {layout.outer, layout.split, layout.inner};
  const std::array<std::int64_t, 2> parts = {layout.outer_parts, layout.split_parts};
  if (layout.path.size() < 2 || layout.path.front() != '/') return "its path does not begin with /";
  if (layout.shape.empty() || layout.shape.size() > kMaxDimensions) return "its number of dimensions";
  if (!product(layout.shape, kMaxElements)) return "its shape " + to_string(layout.shape);
  if (!product(parts, kMaxBoxes)) return "its number of boxes";
  if (!product(view, kMaxElements) || !match_axes(layout))
    return fmt::format("its view [{}] does not fit its shape {}", fmt::join(view, ", "),
                       to_string(layout.shape));
  return "";
}

int box_count(const TensorLayout& layout) { return layout.outer_parts * layout.split_parts; }

int box_index(const TensorLayout& layout, int outer_part, int split_part) {
  check(outer_part >= 0 && outer_part < layout.outer_parts && split_part >= 0 &&
            split_part < layout.split_parts,
        fmt::format("{} has no box ({}, {})", layout.path, outer_part, split_part));
  return outer_part * layout.split_parts + split_part;
}

Region box_region(const TensorLayout& layout, int outer_part, int split_part) {
  return {part_of(layout.outer, outer_part, layout.outer_parts),
          part_of(layout.split, split_part, layout.split_parts),
          {0, layout.inner}};
}

std::vector<Region> pieces_of(const Region& region, std::int64_t limit) {
  const std::int64_t row = region.inner.count, plane = region.split.count * row;
  std::vector<Region> pieces;
  if (region.size() == 0) return pieces;
  for (const Range& outer : cut(region.outer, std::max<std::int64_t>(1, limit / plane)))
    for (const Range& split : plane <= limit ? std::vector{region.split}
                                             : cut(region.split, std::max<std::int64_t>(1, limit / row)))
      for (const Range& inner : row <= limit ? std::vector{region.inner} : cut(region.inner, limit))
        pieces.push_back({outer, split, inner});
  return pieces;
}

Hyperslab hyperslab_of(const TensorLayout& layout, const Region& region) {
  const auto matched = match_axes(layout);
  check(matched.has_value(), layout.path + ": " + layout_problem(layout));
  const std::array<std::int64_t, 3> view = {layout.outer, layout.split, layout.inner};
  const std::array<Range, 3> wanted = {region.outer, region.split, region.inner};

  Hyperslab slab;
  for (const Axes& axes : *matched) {
    // An axis that lies in another dimension counts as one of size 1 here.
    std::array<std::int64_t, 3> size = {1, 1, 1};
    std::array<Range, 3> range = {Range{0, 1}, Range{0, 1}, Range{0, 1}};
    for (auto axis = static_cast<std::size_t>(axes.first); axis < static_cast<std::size_t>(axes.last);
         ++axis) {
      size[axis] = view[axis];
      range[axis] = wanted[axis];
    }
    const auto add = [](std::vector<unsigned long long>& to, std::int64_t value) {
      to.push_back(static_cast<unsigned long long>(value));
    };
    add(slab.start, (range[0].first * size[1] + range[1].first) * size[2] + range[2].first);
    add(slab.stride, size[1] * size[2]);
    add(slab.count, range[0].count);
    add(slab.block, range[1].count * range[2].count);
  }
  return slab;
}

}  // namespace checkpoint
}  // namespace lamina
