// Hostile metadata whose checksums are right: refused before HDF5 sees it.
#include "io/checkpoint/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "io/checkpoint/damage.h"
#include "runtime/error.h"
#include "tests/fuzz/harness.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina::checkpoint {
namespace {

using ::testing::HasSubstr;

std::string little_endian(std::uint64_t value, std::size_t bytes) {
  return {reinterpret_cast<const char*>(&value), bytes};
}

/// A message of an object header: type, size, flags, body.
std::string message(char type, const std::string& body, char flags = 1) {
  return type + little_endian(body.size(), 2) + flags + body;
}

const std::string kFloat("\x11\x20\x1F\x00\x04\x00\x00\x00\x00\x00\x20\x00\x17\x08\x00\x17\x7F\x00\x00\x00",
                         20);
const std::string kShapeOfTable = std::string("\x02\x02\x01\x01") + little_endian(9, 8) + little_endian(8, 8);

class Metadata : public ::testing::Test {
 protected:
  Metadata() {
    write_sample(folder_ / "a.h5");
    bytes_ = bytes_of(folder_ / "a.h5");
  }

  std::size_t place_of(const std::string& what, std::size_t from = 0) const {
    const std::size_t place = bytes_.find(what, from);
    if (place == std::string::npos) throw std::logic_error("the sample has no such bytes");
    return place;
  }

  void put(std::size_t place, const std::string& bytes) { bytes_.replace(place, bytes.size(), bytes); }

  /// Why the changed file is refused, its checksums repaired.
  std::string refusal() {
    fuzz::repair_checksums({reinterpret_cast<std::uint8_t*>(bytes_.data()), bytes_.size()});
    const fuzz::MemoryFile file({reinterpret_cast<const std::uint8_t*>(bytes_.data()), bytes_.size()});
    try {
      read_metadata(file.path());
    } catch (const Damage& damage) {
      return damage.what();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }

  /// The place of the address in the link to `name`.
  std::size_t address_of(const std::string& name) const {
    const std::string start = std::string("\x01\x00", 2) + little_endian(name.size(), 1) + name;
    return place_of(start) + start.size();
  }

  /// The place of the layout message of the first dataset of the sample that has `shape`.
  std::size_t layout_of(const std::string& shape) const {
    return place_of(std::string("\x08\x12\x00\x01\x04\x01", 6), place_of(shape)) + 4;
  }

  const TemporaryFolder folder_;
  std::string bytes_;
};

TEST_F(Metadata, ListsTheDatasetsOfASample) {
  const std::vector<std::string> paths = read_metadata(folder_ / "a.h5");

  EXPECT_EQ(paths.size(), 2 * sample_layouts().size() + 1);
  EXPECT_TRUE(std::ranges::is_sorted(paths));
  EXPECT_EQ(refusal(), "");
}

TEST_F(Metadata, ChecksumIsThatOfHdf5) {
  std::uint32_t stored = 0;
  std::memcpy(&stored, &bytes_[44], sizeof stored);

  EXPECT_EQ(metadata_checksum(std::as_bytes(std::span(bytes_)).first(44)), stored);
}

TEST_F(Metadata, TheRootAsItsOwnMember) {
  put(address_of("state"), little_endian(48, 8));
  EXPECT_THAT(refusal(), HasSubstr("/state is linked more than once"));
}

TEST_F(Metadata, TwoLinksToOneObject) {
  put(address_of("state"), bytes_.substr(address_of("vocabulary"), 8));
  EXPECT_THAT(refusal(), HasSubstr("is linked more than once"));
}

TEST_F(Metadata, ALinkOutOfTheFile) {
  put(address_of("state"), little_endian(std::uint64_t{1} << 63, 8));
  EXPECT_THAT(refusal(), HasSubstr("/state does not lie in the file"));
}

TEST_F(Metadata, ALinkIntoNumbers) {
  put(address_of("state"), little_endian(bytes_.size() - 64, 8));
  EXPECT_THAT(refusal(), HasSubstr("/state has a broken header"));
}

TEST_F(Metadata, NamesThatLeadElsewhere) {
  for (const std::string& name :
       std::vector<std::string>{"..ate", "st/te", "st\x1Bte", {"st\0te", 5}, "st te"}) {
    put(address_of("state") - 5, name);
    EXPECT_THAT(refusal(), HasSubstr("name is not of plain letters")) << testing::PrintToString(name);
    bytes_ = bytes_of(folder_ / "a.h5");
  }
}

TEST_F(Metadata, AContinuationInItself) {
  const std::size_t message = place_of(std::string("\x10\x10\x00\x00", 4));
  const std::string place = little_endian(48, 8);
  put(message + 4, place);
  EXPECT_THAT(refusal(), ::testing::AnyOf(HasSubstr("overlaps"), HasSubstr("broken"), HasSubstr("checksum")));
}

TEST_F(Metadata, AContinuationOfAbsurdLength) {
  const std::size_t message = place_of(std::string("\x10\x10\x00\x00", 4));
  put(message + 12, little_endian(std::uint64_t{1} << 62, 8));
  EXPECT_THAT(refusal(), HasSubstr("does not lie in the file"));
}

TEST_F(Metadata, ShapesWithoutTheirBytes) {
  for (const std::uint64_t size : {std::uint64_t{10}, std::uint64_t{1} << 47, ~std::uint64_t{0}}) {
    const std::size_t shape = place_of(kShapeOfTable);
    put(shape + 4, little_endian(size, 8));
    put(shape + 20, little_endian(size, 8));  // and as its maximum
    EXPECT_THAT(refusal(), ::testing::AnyOf(HasSubstr("as its shape says"), HasSubstr("absurd shape")))
        << size;
    bytes_ = bytes_of(folder_ / "a.h5");
  }
}

TEST_F(Metadata, ADatasetOnTopOfAnother) {
  const std::size_t layout = layout_of(kShapeOfTable);
  const std::size_t next =
      layout_of(std::string("\x02\x02\x01\x01") + little_endian(32, 8) + little_endian(8, 8));
  put(layout + 2, bytes_.substr(next + 2, 8));
  EXPECT_THAT(refusal(), HasSubstr("overlaps another part of the file"));
}

TEST_F(Metadata, ADatasetOnTopOfTheSuperblock) {
  put(layout_of(kShapeOfTable) + 2, little_endian(0, 8));
  EXPECT_THAT(refusal(), HasSubstr("overlaps another part of the file"));
}

TEST_F(Metadata, OtherLayouts) {
  put(layout_of(kShapeOfTable) + 1, std::string(1, '\x02'));
  EXPECT_THAT(refusal(), HasSubstr("is not stored contiguously"));
}

TEST_F(Metadata, OtherTypes) {
  for (const std::size_t byte : {0, 1, 4, 8, 10, 12, 13, 15, 16}) {
    const std::size_t type = place_of(kFloat, place_of(kShapeOfTable));
    put(type + byte, std::string(1, static_cast<char>(bytes_[type + byte] + 1)));
    EXPECT_THAT(refusal(), HasSubstr("has another element type")) << byte;
    bytes_ = bytes_of(folder_ / "a.h5");
  }
}

/// Numbers of other kinds are for the reader of the record to judge.
TEST_F(Metadata, DoublePrecisionIsAKnownType) {
  const std::string real("\x11\x20\x3F\x00\x08\x00\x00\x00\x00\x00\x40\x00\x34\x0B\x00\x34\xFF\x03\x00\x00",
                         20);
  put(place_of(kFloat, place_of(kShapeOfTable)), real);
  EXPECT_THAT(refusal(), HasSubstr("does not lie in the file as its shape says"));  // of twice the size now
}

TEST_F(Metadata, OtherMessages) {
  for (const char type : std::string("\x04\x07\x0B\x0D\x11\x12\x13\x14\x16\x18\x7F")) {
    const std::size_t fill = place_of(message(0x05, "\x03\x05"), place_of(kShapeOfTable));
    put(fill, std::string(1, type));
    EXPECT_NE(refusal(), "") << int{type};
    bytes_ = bytes_of(folder_ / "a.h5");
  }
}

TEST_F(Metadata, SharedMessages) {
  put(place_of(message(0x03, kFloat), place_of(kShapeOfTable)) + 3, std::string(1, '\x03'));
  EXPECT_THAT(refusal(), HasSubstr("that no checkpoint has"));
}

TEST_F(Metadata, MembersInAHeap) {
  const std::string info = std::string("\x00\x00", 2) + std::string(16, '\xFF');
  put(place_of(message(0x02, info, 0)) + 6, little_endian(4096, 8));
  EXPECT_THAT(refusal(), HasSubstr("lists its members in a heap"));
}

TEST_F(Metadata, ASuperblockThatContinues) {
  put(20, little_endian(4096, 8));
  EXPECT_THAT(refusal(), HasSubstr("not a Lamina checkpoint"));
}

}  // namespace
}  // namespace lamina::checkpoint
