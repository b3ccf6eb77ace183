// A file that is written from its beginning to its end, and complete or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "io/checkpoint/disk.h"

namespace lamina::npy {

/// Errors are std::runtime_error with the system's reason.
class OutputFile {
 public:
  /// Begins "<file>.partial", in place of one that an interrupted write left.
  explicit OutputFile(const std::filesystem::path& file);
  ~OutputFile();  ///< removes it unless committed
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view bytes) { append(std::as_bytes(std::span(bytes))); }
  std::uint64_t size() const { return static_cast<std::uint64_t>(size_); }
  /// Renames it once it is on the disk.
  void commit();

 private:
  const std::filesystem::path file_, partial_;
  checkpoint::Descriptor descriptor_;
  std::int64_t size_ = 0;
  bool committed_ = false;
};

}  // namespace lamina::npy
