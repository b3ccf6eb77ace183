// XXH3-128 digests: of what a checkpoint holds, and of what ranks must hold alike.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>

namespace lamina {

/// In canonical (big-endian) byte order.
using Digest = std::array<unsigned char, 16>;

Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::span<const float> values);
/// Hexadecimal, 32 digits.
std::string to_hex(const Digest& digest);

}  // namespace lamina
