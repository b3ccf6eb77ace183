// The metadata of a checkpoint, read without HDF5 and before it: the library (1.10) crashes on hostile files,
// so it gets to see only the small part of its format that a checkpoint uses, each byte of it checked here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace lamina::checkpoint {

/// The paths of all datasets, ascending. Nothing is taken on the file's word: blocks lie within the file,
/// apart from each other and match their checksums; links are hard, one to each object; there are no other
/// messages, types, layouts or filters than io/README.md says; data lies in the file in full size.
/// Throws Damage; UserError when `file` is no checkpoint or of another format version.
std::vector<std::string> read_metadata(const std::filesystem::path& file);

/// HDF5's checksum of a metadata block (Jenkins' lookup3).
std::uint32_t metadata_checksum(std::span<const std::byte> bytes);

}  // namespace lamina::checkpoint
