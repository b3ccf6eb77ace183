// A zip archive of stored members, with 64-bit sizes throughout (zip64), as numpy.savez writes it. Own code,
// because archive libraries either want every member's bytes until the end or bring more than these lines.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "io/npy/output_file.h"

namespace lamina::npy {

class ZipWriter {
 public:
  explicit ZipWriter(OutputFile& file) : file_(file) {}

  /// A member whose bytes are `parts`, one after another.
  void add(const std::string& name, std::initializer_list<std::span<const std::byte>> parts);
  /// The table of contents; nothing is added later.
  void finish();

 private:
  struct Member {
    std::string name;
    std::uint32_t checksum;
    std::uint64_t size, place;
  };

  OutputFile& file_;
  std::vector<Member> members_;
};

}  // namespace lamina::npy
