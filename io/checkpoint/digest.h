// The digests of a checkpoint: of boxes, and the root digest that binds them to the record. io/README.md
// gives the bytes.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "io/digest.h"

namespace lamina::checkpoint {

constexpr std::int64_t kFormatVersion = 2;

using lamina::Digest;
using lamina::digest_of;
using lamina::to_hex;

Digest digest_of(const std::vector<Digest>& digests);

/// A tensor as a checkpoint describes it: everything but its numbers.
struct DescribedTensor {
  TensorLayout layout;
  std::vector<Digest> digests;  ///< [outer_parts * split_parts]
  std::int64_t place = 0;       ///< of its numbers in the file, in bytes; no digest covers it
};

/// Over the whole record and `tensors`, which are in ascending order of path.
Digest root_digest(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors);

}  // namespace lamina::checkpoint
