// XXH3-128 digests of boxes, and the root digest that binds them to the record. io/README.md gives the bytes.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.h"

namespace lamina::checkpoint {

constexpr std::int64_t kFormatVersion = 2;

/// In canonical (big-endian) byte order.
using Digest = std::array<unsigned char, 16>;

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::span<const float> values);
Digest digest_of(const std::vector<Digest>& digests);
std::string to_hex(const Digest& digest);

/// A tensor as a checkpoint describes it: everything but its numbers.
struct DescribedTensor {
  TensorLayout layout;
  std::vector<Digest> digests;  ///< [outer_parts * split_parts]
  std::int64_t place = 0;       ///< of its numbers in the file, in bytes; no digest covers it
};

/// Over the whole record and `tensors`, which are in ascending order of path.
Digest root_digest(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors);

}  // namespace lamina::checkpoint
