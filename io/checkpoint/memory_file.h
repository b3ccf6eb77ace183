// A file of HDF5 in memory: only what is written takes memory, the holes of unwritten datasets do not.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "io/checkpoint/disk.h"
#include "io/checkpoint/hdf5.h"

namespace lamina::checkpoint {

class MemoryFile {
 public:
  void write(std::uint64_t place, std::span<const std::byte> bytes);
  void read(std::uint64_t place, std::span<std::byte> bytes) const;  ///< holes read as zeros
  /// Copies what was written to the same places of `file`, in whole pages.
  void copy_to(const Descriptor& file) const;

  std::uint64_t size = 0;  ///< as HDF5 sets it when it closes the file

 private:
  static constexpr std::uint64_t kPage = 4096;
  using Page = std::array<std::byte, kPage>;

  std::map<std::uint64_t, Page> pages_;  ///< by place / kPage
};

/// Lets H5Fcreate make its file in `file`, which must outlive it.
hdf5::Handle memory_access(MemoryFile& file);

}  // namespace lamina::checkpoint
