// ctest: labels=fault timeout=300
// Damage of every kind, many times over: a file loads with exactly its numbers, or is refused by its name
// and, where numbers were hit, its tensor's. Fixed seeds.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "io/checkpoint.h"
#include "io/checkpoint/hdf5.h"
#include "runtime/error.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

// HDF5 itself leaks when it meets damaged metadata.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::size_t kPage = 4096, kSector = 512;

/// As the small sample, but with weights of several pages.
std::vector<TensorLayout> layouts() {
  std::vector<TensorLayout> all = sample_layouts();
  for (const std::string where : {"/parameters/", "/optimizer/first_moment/", "/optimizer/second_moment/"}) {
    all.push_back(sample_layout(where + "lstm1/W_x", {256, 64}, {4, 64, 64}));
    all.push_back(sample_layout(where + "lstm1/W_h", {256, 64}, {4, 64, 64}));
    all.push_back(sample_layout(where + "lstm1/bias", {256}, {4, 64, 1}));
  }
  return all;
}

struct Extent {
  std::string tensor;
  std::size_t begin, end;
};

/// Where the numbers of each tensor lie.
std::vector<Extent> extents_of(const fs::path& file) {
  const hdf5::Section section;
  const hdf5::Handle open = hdf5::open_file(file, H5F_ACC_RDONLY, hdf5::serial_access());
  std::vector<Extent> extents;
  for (const TensorLayout& layout : layouts()) {
    const hdf5::Handle dataset = hdf5::open_dataset(open, layout.path);
    const auto begin = static_cast<std::size_t>(H5Dget_offset(dataset));
    extents.push_back({layout.path, begin, begin + static_cast<std::size_t>(H5Dget_storage_size(dataset))});
  }
  return extents;
}

class DamageSuite : public ::testing::Test {
 protected:
  DamageSuite() : boxes_(layouts(), all_on(0), 0) {
    write_checkpoint(file_, sample_record(), boxes_.to_write(), *self_);
    good_ = bytes_of(file_);
    extents_ = extents_of(file_);
  }

  ~DamageSuite() override {
    std::printf("%d files: %d refused (%d of them for a tensor), %d loaded with the right numbers\n",
                refused_ + loaded_, refused_, for_a_tensor_, loaded_);
  }

  /// Puts `bytes` at `place`.
  void patch(std::size_t place, const std::string& bytes) const {
    const int file = ::open(file_.c_str(), O_WRONLY);
    const auto written = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(place));
    ::close(file);
    ASSERT_EQ(written, static_cast<ssize_t>(bytes.size()));
  }

  void overwrite(const std::string& bytes) const {
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << bytes;
  }

  /// Why the file is refused; empty when it gives exactly the sample's record and numbers.
  std::string refusal() {
    try {
      const CheckpointRecord record = read_record(file_);
      read_checkpoint(file_, boxes_.to_read(), *self_);
      EXPECT_EQ(record.step, sample_record().step);
      EXPECT_EQ(record.configuration, sample_record().configuration);
      EXPECT_EQ(record.vocabulary, sample_record().vocabulary);
    } catch (const DamagedCheckpoint& error) {
      return error.what();
    } catch (const UserError& error) {
      return error.what();
    }
    EXPECT_TRUE(boxes_.is_right()) << "wrong numbers came back";
    return "";
  }

  /// Reads the file and counts. A refusal names the file.
  std::string outcome(const std::string& damage) {
    const std::string reason = refusal();
    if (reason.empty())
      ++loaded_;
    else
      ++refused_;
    EXPECT_THAT(reason, ::testing::AnyOf("", HasSubstr(file_.string()))) << damage;
    return reason;
  }

  /// Puts `bytes` at `place`, reads, and restores. Where numbers changed, the refusal names their tensor.
  void read_with(std::size_t place, const std::string& bytes, const std::string& damage) {
    patch(place, bytes);
    const std::string reason = outcome(damage);
    const std::vector<std::string> hit = tensors_hit(place, bytes);
    if (!hit.empty()) {
      EXPECT_NE(reason, "") << damage << ": changed numbers of " << hit.front() << " were taken";
      if (only_numbers(place, bytes.size())) {
        EXPECT_THAT(hit, ::testing::Contains(::testing::ResultOf(
                             [&](const std::string& tensor) {
                               return reason.find(tensor + " does not match") != std::string::npos;
                             },
                             true)))
            << damage << ": " << reason;
        ++for_a_tensor_;
      }
    }
    patch(place, good_.substr(place, bytes.size()));
  }

  std::vector<std::string> tensors_hit(std::size_t place, const std::string& bytes) const {
    std::vector<std::string> hit;
    for (const Extent& extent : extents_) {
      const std::size_t begin = std::max(place, extent.begin),
                        end = std::min(place + bytes.size(), extent.end);
      if (begin < end && good_.substr(begin, end - begin) != bytes.substr(begin - place, end - begin))
        hit.push_back(extent.tensor);
    }
    return hit;
  }

  bool only_numbers(std::size_t place, std::size_t size) const {
    std::size_t covered = 0;
    for (const Extent& extent : extents_) {
      const std::size_t begin = std::max(place, extent.begin), end = std::min(place + size, extent.end);
      if (begin < end) covered += end - begin;
    }
    return covered == size;
  }

  const TemporaryFolder folder_;
  const fs::path file_ = folder_ / "a.h5";
  const std::unique_ptr<Communicator> self_ = make_self_communicator();
  SampleBoxes boxes_;
  std::string good_;
  std::vector<Extent> extents_;
  int refused_ = 0, loaded_ = 0, for_a_tensor_ = 0;
};

TEST_F(DamageSuite, TheWholeFileLoads) {
  EXPECT_EQ(outcome("none"), "");
  EXPECT_GT(good_.size(), 100 * kPage);
}

TEST_F(DamageSuite, CutAtEveryPage) {
  for (std::size_t size = (good_.size() - 1) / kPage * kPage; size > 0; size -= kPage) {
    fs::resize_file(file_, size);
    EXPECT_NE(outcome(""), "") << "cut to " << size << " bytes";
  }
}

TEST_F(DamageSuite, CutAtEveryByteOfTheFirstPage) {
  for (std::size_t size = kPage; size-- > 0;) {
    fs::resize_file(file_, size);
    EXPECT_NE(outcome(""), "") << "cut to " << size << " bytes";
  }
}

TEST_F(DamageSuite, FlippedBits) {
  constexpr int kFlips = 1000;
  std::mt19937_64 random(20);
  for (int flip = 0; flip < kFlips; ++flip) {
    const std::size_t place = random() % good_.size(), bit = random() % 8;
    const std::string byte(1, static_cast<char>(good_[place] ^ (1 << bit)));
    read_with(place, byte, fmt::format("bit {} of byte {}", bit, place));
  }
  EXPECT_GT(for_a_tensor_, kFlips / 2);
  EXPECT_LT(loaded_, kFlips / 4);  // these lie in unused space
}

TEST_F(DamageSuite, FlippedBitsOfMetadata) {
  constexpr int kFlips = 1000;
  std::mt19937_64 random(21);
  for (int flips = 0; flips < kFlips;) {
    const std::size_t place = random() % good_.size(), bit = random() % 8;
    if (only_numbers(place, 1)) continue;
    ++flips;
    const std::string byte(1, static_cast<char>(good_[place] ^ (1 << bit)));
    read_with(place, byte, fmt::format("bit {} of byte {}", bit, place));
  }
  EXPECT_GT(refused_, kFlips / 2);
}

TEST_F(DamageSuite, SectorsZeroedOrTakenFromElsewhere) {
  constexpr int kSectors = 1000;
  std::mt19937_64 random(22);
  const std::size_t sectors = good_.size() / kSector;
  for (int i = 0; i < kSectors; ++i) {
    const std::size_t place = random() % sectors * kSector, other = random() % sectors * kSector;
    const bool is_zeroed = i % 2 == 0;
    read_with(place, is_zeroed ? std::string(kSector, '\0') : good_.substr(other, kSector),
              fmt::format("the sector at {} {}", place,
                          is_zeroed ? "zeroed" : fmt::format("as that at {}", other)));
  }
  EXPECT_GT(refused_, kSectors * 3 / 4);
}

TEST_F(DamageSuite, PagesOfTwoSteps) {
  CheckpointRecord later = sample_record();
  ++later.step;
  SampleBoxes moved(layouts(), all_on(0), 0);
  for (std::size_t box = 0; box < layouts().size() * kSampleBlocks; ++box)
    for (float& value : moved.values(box)) value += 0.5f;
  write_checkpoint(folder_ / "b.h5", later, moved.to_write(), *self_);
  const std::string other = bytes_of(folder_ / "b.h5");
  ASSERT_EQ(good_.size(), other.size());

  std::mt19937_64 random(23);
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t share = 1 + random() % 99;  // percent of the pages that are of the later step
    std::string mixed = good_;
    for (std::size_t page = 0; page < good_.size(); page += kPage)
      if (random() % 100 < share) mixed.replace(page, kPage, other.substr(page, kPage));
    if (mixed == good_ || mixed == other) continue;
    overwrite(mixed);
    EXPECT_NE(outcome(""), "") << "mixture " << i;
  }
  EXPECT_GT(refused_, 250);
}

/// Every box has a right digest, of one step or the other; only the root digest binds them to a step.
TEST_F(DamageSuite, TensorsAndDigestsOfAnotherStep) {
  CheckpointRecord later = sample_record();
  ++later.step;
  write_checkpoint(folder_ / "b.h5", later, boxes_.to_write(), *self_);
  SampleBoxes moved(layouts(), all_on(0), 0);
  for (std::size_t box = 0; box < layouts().size() * kSampleBlocks; ++box)
    for (float& value : moved.values(box)) value += 0.5f;
  write_checkpoint(file_, sample_record(), moved.to_write(), *self_);
  std::string mixed = bytes_of(file_);  // its numbers and digests, and the root digest and step of b.h5
  const std::string other = bytes_of(folder_ / "b.h5");
  ASSERT_EQ(mixed.size(), other.size());
  const std::string name = "root_digest";
  const auto root = other.find(name);
  ASSERT_NE(root, std::string::npos);
  ASSERT_EQ(root, mixed.find(name));
  mixed.replace(0, root + kSector, other.substr(0, root + kSector));
  overwrite(mixed);

  EXPECT_THAT(outcome(""), HasSubstr("root digest"));
}

}  // namespace
}  // namespace lamina
