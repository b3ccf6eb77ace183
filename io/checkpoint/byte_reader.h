// Bytes that nobody vouches for, read from the front.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "io/checkpoint/damage.h"

namespace lamina::checkpoint {

/// Every member throws Damage(`complaint`) where the bytes do not suffice.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const std::string& complaint)
      : rest_(bytes), complaint_(complaint) {}

  std::size_t left() const { return rest_.size(); }

  std::span<const std::byte> take(std::uint64_t count) {
    demand(count <= rest_.size(), complaint_);
    const auto taken = rest_.first(static_cast<std::size_t>(count));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::string_view text(std::uint64_t count) {
    const auto bytes = take(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// Little endian, of 1 to 8 bytes.
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(bytes).data(), bytes);
    return value;
  }

 private:
  std::span<const std::byte> rest_;
  std::string complaint_;
};

}  // namespace lamina::checkpoint
