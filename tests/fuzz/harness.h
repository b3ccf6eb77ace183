// What is done with the bytes of a stranger: by the fuzzers with bytes that they invent, by replay_test with
// those that were kept. A UserError, a DamagedCheckpoint or a correct load is fine; anything else gets out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace lamina::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// The bytes are a checkpoint file: every way to read one.
void checkpoint(Bytes bytes);
/// The bytes choose what is wrong with a checkpoint that HDF5 itself writes, which is then read.
void structure(Bytes bytes);
/// The bytes are a text file, and what it is cut into.
void text(Bytes bytes);
/// The bytes are a configuration in TOML.
void toml(Bytes bytes);

/// Makes the checksums of a changed checkpoint right where its blocks can be found, and its size.
void repair_checksums(std::span<std::uint8_t> file);

/// A file in memory.
class MemoryFile {
 public:
  explicit MemoryFile(Bytes bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::filesystem::path path() const;

 private:
  int descriptor_;
};

/// Takes one decision after another from bytes; zeros when they are used up.
class Choices {
 public:
  explicit Choices(Bytes bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  std::uint64_t number(int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | byte();
    return value;
  }
  template <class Options>
  const auto& one_of(const Options& options) {
    return options[byte() % std::size(options)];
  }

 private:
  Bytes bytes_;
};

}  // namespace lamina::fuzz
