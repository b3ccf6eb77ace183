#include "io/npy/zip.h"

#include <zlib.h>

#include <bit>

namespace lamina::npy {
namespace {

static_assert(std::endian::native == std::endian::little, "zip records are little endian");

constexpr std::uint16_t kVersion = 45;                // knows zip64
constexpr std::uint16_t kMadeBy = 3 << 8 | kVersion;  // Unix: attributes are a mode
constexpr std::uint32_t kMode = 0100644u << 16;       // a regular file
constexpr std::uint16_t kUtf8Names = 1 << 11, kStored = 0;
constexpr std::uint16_t kTime = 0, kDate = 1 << 5 | 1;  // 1980-01-01, so that equal content gives equal bytes
constexpr std::uint16_t kZip64Field = 1, kZip64Count = 0xFFFF;
constexpr std::uint32_t kZip64Size = 0xFFFFFFFF;  // the number stands in a zip64 record

/// Numbers, one after another.
template <class... Numbers>
std::string record(Numbers... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
  return bytes;
}

std::uint16_t length(const std::string& bytes) { return static_cast<std::uint16_t>(bytes.size()); }

}  // namespace

void ZipWriter::add(const std::string& name, std::initializer_list<std::span<const std::byte>> parts) {
  Member member{name, 0, 0, file_.size()};
  for (const auto part : parts) {
    member.checksum = static_cast<std::uint32_t>(
        crc32_z(member.checksum, reinterpret_cast<const unsigned char*>(part.data()), part.size()));
    member.size += part.size();
  }
  const std::string sizes = record(kZip64Field, std::uint16_t{16}, member.size, member.size);
  file_.append(record(std::uint32_t{0x04034b50}, kVersion, kUtf8Names, kStored, kTime, kDate, member.checksum,
                      kZip64Size, kZip64Size, length(name), length(sizes)) +
               name + sizes);
  for (const auto part : parts) file_.append(part);
  members_.push_back(std::move(member));
}

void ZipWriter::finish() {
  const std::uint64_t place = file_.size(), count = members_.size();
  for (const Member& member : members_) {
    const std::string sizes = record(kZip64Field, std::uint16_t{24}, member.size, member.size, member.place);
    file_.append(record(std::uint32_t{0x02014b50}, kMadeBy, kVersion, kUtf8Names, kStored, kTime, kDate,
                        member.checksum, kZip64Size, kZip64Size, length(member.name), length(sizes),
                        std::uint16_t{0}, std::uint16_t{0}, std::uint16_t{0}, kMode, kZip64Size) +
                 member.name + sizes);
  }
  const std::uint64_t end = file_.size();
  file_.append(record(std::uint32_t{0x06064b50}, std::uint64_t{44}, kMadeBy, kVersion, std::uint32_t{0},
                      std::uint32_t{0}, count, count, end - place, place));
  file_.append(record(std::uint32_t{0x07064b50}, std::uint32_t{0}, end, std::uint32_t{1}));
  file_.append(record(std::uint32_t{0x06054b50}, std::uint16_t{0}, std::uint16_t{0}, kZip64Count, kZip64Count,
                      kZip64Size, kZip64Size, std::uint16_t{0}));
}

}  // namespace lamina::npy
