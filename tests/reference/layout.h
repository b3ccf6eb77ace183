// Between the reference's global layouts and a rank's own: blocks of parameters (runtime/parameter.h), full
// [D, T, R, W] and blocked [D, K, T*R, W/G] activations (runtime/backend.h), against [T, B, W].
#pragma once

#include <span>
#include <vector>

#include "runtime/parameter.h"
#include "runtime/tiling.h"

namespace lamina::reference {

/// Calls visit(global index, local index) for every element of the blocks `share` of a parameter.
template <class Visit>
void for_each_element(const BlockedShape& shape, const Share& share, const Visit& visit) {
  std::size_t local = 0;
  for (int block = share.first; block < share.first + share.local; ++block)
    for (std::int64_t outer = 0; outer < shape.outer; ++outer)
      for (std::int64_t split = shape.bound(block); split < shape.bound(block + 1); ++split)
        for (std::int64_t inner = 0; inner < shape.inner; ++inner)
          visit(static_cast<std::size_t>((outer * shape.split + split) * shape.inner + inner), local++);
}

/// This rank's blocks of a global tensor.
template <class To, class From>
std::vector<To> to_blocks(const std::vector<From>& global, const BlockedShape& shape, const Share& share) {
  std::vector<To> local;
  for_each_element(shape, share,
                   [&](std::size_t from, std::size_t) { local.push_back(static_cast<To>(global[from])); });
  return local;
}

/// Writes a rank's blocks where they belong in the global tensor.
template <class From, class To>
void from_blocks(std::span<const From> local, const BlockedShape& shape, const Share& share,
                 std::vector<To>& global) {
  for_each_element(shape, share,
                   [&](std::size_t to, std::size_t from) { global[to] = static_cast<To>(local[from]); });
}

/// Which elements of a sequence tensor [T, B, width] a rank holds, and where.
struct SequenceLayout {
  Tiling tiling;
  int time_steps = 1;
  int width = 1;

  std::size_t global_size() const { return product(time_steps, tiling.batch(), width); }
  std::size_t full_size() const { return product(time_steps, tiling.local_lanes(), width); }
  std::size_t blocked_size() const {
    return full_size() / part(tiling.blocks.count) * part(tiling.blocks.local);
  }

  /// visit(global index, index in the full layout [D, T, R, width]).
  template <class Visit>
  void for_each_full(const Visit& visit) const {
    std::size_t local = 0;
    for (int d = 0; d < tiling.groups.local; ++d)
      for (int t = 0; t < time_steps; ++t)
        for (int r = 0; r < tiling.rows; ++r)
          for (int j = 0; j < width; ++j) visit(global_index(d, t, r, j), local++);
  }

  /// visit(global index, index in the blocked layout [D, K, T*R, width / G]).
  template <class Visit>
  void for_each_blocked(const Visit& visit) const {
    const int unit_block = width / tiling.blocks.count;
    std::size_t local = 0;
    for (int d = 0; d < tiling.groups.local; ++d)
      for (int k = 0; k < tiling.blocks.local; ++k)
        for (int t = 0; t < time_steps; ++t)
          for (int r = 0; r < tiling.rows; ++r)
            for (int u = 0; u < unit_block; ++u)
              visit(global_index(d, t, r, (tiling.blocks.first + k) * unit_block + u), local++);
  }

  template <class To, class From>
  std::vector<To> to_full(const std::vector<From>& global) const {
    std::vector<To> local(full_size());
    for_each_full([&](std::size_t from, std::size_t to) { local[to] = static_cast<To>(global[from]); });
    return local;
  }
  template <class To, class From>
  std::vector<To> to_blocked(const std::vector<From>& global) const {
    std::vector<To> local(blocked_size());
    for_each_blocked([&](std::size_t from, std::size_t to) { local[to] = static_cast<To>(global[from]); });
    return local;
  }
  template <class From, class To>
  void from_full(std::span<const From> local, std::vector<To>& global) const {
    for_each_full([&](std::size_t to, std::size_t from) { global[to] = static_cast<To>(local[from]); });
  }
  template <class From, class To>
  void from_blocked(std::span<const From> local, std::vector<To>& global) const {
    for_each_blocked([&](std::size_t to, std::size_t from) { global[to] = static_cast<To>(local[from]); });
  }

 private:
  static std::size_t part(int n) { return static_cast<std::size_t>(n); }
  static std::size_t product(int a, int b, int c) { return part(a) * part(b) * part(c); }
  std::size_t global_index(int d, int t, int r, int j) const {
    const std::size_t lane = part(tiling.first_lane() + d * tiling.rows + r);
    return (part(t) * part(tiling.batch()) + lane) * part(width) + part(j);
  }
};

}  // namespace lamina::reference
