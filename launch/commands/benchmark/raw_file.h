// Bytes to and from a file with nothing in between, as fast as the system gives them: what checkpoints are
// compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace lamina {

/// Writes `bytes` at `place` of a file that may exist, and waits until they are on the disk. UserError.
void write_raw(const std::filesystem::path& file, std::int64_t place, std::span<const std::byte> bytes);
/// Fills `bytes` from `place`. UserError.
void read_raw(const std::filesystem::path& file, std::int64_t place, std::span<std::byte> bytes);
/// Lets the system forget what it holds of the file in memory, so that it is read from the disk. UserError.
void drop_from_cache(const std::filesystem::path& file);

}  // namespace lamina
