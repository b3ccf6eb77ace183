// Elementwise reduction of one array per rank, merged in the tree of runtime/tree.h.
#pragma once

#include <cstddef>
#include <span>

#include "runtime/communicator.h"

namespace lamina {

/// out[i] = reduction over ranks r of sources[r][i], i < count. `out` overlaps no source; all are aligned for
/// their type. Integer sums wrap; bytes compare as unsigned and have no sum.
void reduce_in_tree(std::span<const std::byte* const> sources, void* out, std::size_t count, ElementType type,
                    Reduction reduction);

}  // namespace lamina
