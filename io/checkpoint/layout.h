// Index arithmetic of tensors and their boxes, without HDF5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.h"

namespace lamina::checkpoint {

struct Range {
  std::int64_t first = 0, count = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

/// A cuboid of the view [outer, split, inner].
struct Region {
  Range outer, split, inner;
  std::int64_t size() const { return outer.count * split.count * inner.count; }
  friend bool operator==(const Region&, const Region&) = default;
};

/// A selection in the dataset's own dimensions, in the words of H5Sselect_hyperslab.
struct Hyperslab {
  std::vector<unsigned long long> start, stride, count, block;
};

std::int64_t elements(const std::vector<std::int64_t>& shape);
std::string to_string(const std::vector<std::int64_t>& shape);  ///< "[4, 8]"

/// What is wrong with a layout (sizes, parts, a view that the shape does not have); empty when it is sound.
std::string layout_problem(const TensorLayout& layout);

int box_count(const TensorLayout& layout);
/// Boxes are numbered row by row: outer part, then split part.
int box_index(const TensorLayout& layout, int outer_part, int split_part);
Region box_region(const TensorLayout& layout, int outer_part, int split_part);

/// Cuts a region into pieces of at most `limit` elements, each contiguous in the region's own memory, in
/// order.
std::vector<Region> pieces_of(const Region& region, std::int64_t limit);

Hyperslab hyperslab_of(const TensorLayout& layout, const Region& region);

}  // namespace lamina::checkpoint
