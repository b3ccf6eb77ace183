// Writes that fail: nothing is committed, nothing is left behind, older checkpoints stay, every rank throws
// the same sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <optional>

#include "io/checkpoint.h"
#include "runtime/error.h"
#include "tests/io/file_size_limit.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// How a world is changed before a rank writes with it.
using Adjust = std::function<std::unique_ptr<Communicator>(Communicator& world)>;

/// The CheckpointWriteError that writing the sample on `ranks` thread ranks gives on all of them; empty when
/// it was written.
std::string write_error(const fs::path& file, int ranks, const Adjust& adjust = nullptr) {
  std::vector<std::string> messages(static_cast<std::size_t>(ranks));
  run_on_threads(ranks, [&](Communicator& world) {
    const auto adjusted = adjust ? adjust(world) : nullptr;
    const SampleBoxes boxes(sample_layouts(), in_runs(ranks), world.rank());
    try {
      write_checkpoint(file, sample_record(), boxes.to_write(), adjusted ? *adjusted : world);
    } catch (const CheckpointWriteError& error) {
      messages[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  for (const std::string& message : messages) EXPECT_EQ(message, messages[0]);
  return messages[0];
}

TEST(CheckpointFailure, UnwritableFolders) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file").flush();

  for (const int ranks : {1, 3}) {
    EXPECT_THAT(write_error(folder / "file/a.h5", ranks),
                AllOf(HasSubstr((folder / "file/a.h5").string()), HasSubstr("Not a directory")));
    EXPECT_THAT(write_error(folder / "none/a.h5", ranks), HasSubstr("No such file or directory"));
    EXPECT_NE(write_error("/proc/a.h5", ranks), "");
  }
}

TEST(CheckpointFailure, ANameThatIsTakenByAFolder) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "a.h5/below");

  EXPECT_THAT(write_error(folder / "a.h5", 2), HasSubstr("cannot rename"));

  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
  EXPECT_TRUE(fs::exists(folder / "a.h5/below"));
}

TEST(CheckpointFailure, ALeftOverPartialFileIsNoHindrance) {
  const TemporaryFolder folder;
  std::ofstream(folder / "elsewhere") << "mine";
  fs::create_symlink(folder / "elsewhere", folder / "a.h5.partial");

  EXPECT_EQ(write_error(folder / "a.h5", 2), "");

  EXPECT_NO_THROW(verify_checkpoint(folder / "a.h5"));
  EXPECT_FALSE(fs::is_symlink(folder / "a.h5"));
  EXPECT_EQ(bytes_of(folder / "elsewhere"), "mine");
}

TEST(CheckpointFailure, TooLargeAFile) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");
  const std::string before = bytes_of(folder / "a.h5");

  for (const rlim_t limit : {0, 4096, 30'000, 60'000}) {
    const FileSizeLimit limited(limit);
    EXPECT_THAT(write_error(folder / "a.h5", 2), AllOf(HasSubstr("File too large"), HasSubstr("ulimit")));
  }

  EXPECT_EQ(bytes_of(folder / "a.h5"), before);
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
  EXPECT_EQ(write_error(folder / "a.h5", 2), "");
}

/// A file system of its own, so small that it can be filled.
class SmallDisk {
 public:
  explicit SmallDisk(const fs::path& folder) : folder_(folder) {
    mounted_ = ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, "size=512k") == 0;
    if (!mounted_) reason_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool is_mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }
  void fill(std::uintmax_t all_but) const {
    const auto free = fs::space(folder_).available;
    std::ofstream(folder_ / "filler") << std::string(free - all_but, 'x');
  }

 private:
  fs::path folder_;
  bool mounted_ = false;
  std::string reason_;
};

TEST(CheckpointFailure, AFullDisk) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path());
  if (!disk.is_mounted()) GTEST_SKIP() << "cannot mount a small file system here: " << disk.reason();
  write_sample(folder / "a.h5");
  const std::string before = bytes_of(folder / "a.h5");

  for (const std::uintmax_t left : {0, 4096, 16384, 65536}) {
    fs::remove(folder / "filler");
    disk.fill(left);
    for (const int ranks : {1, 3})
      EXPECT_THAT(write_error(folder / "a.h5", ranks), HasSubstr("No space left on device"));
    EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
    EXPECT_EQ(bytes_of(folder / "a.h5"), before);
  }
  fs::remove(folder / "filler");
  EXPECT_EQ(write_error(folder / "a.h5", 3), "");
}

TEST(CheckpointFailure, PrepareNoticesAFullDisk) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path());
  if (!disk.is_mounted()) GTEST_SKIP() << "cannot mount a small file system here: " << disk.reason();
  disk.fill(0);

  EXPECT_THROW(CheckpointFolder(folder.path()).prepare(), UserError);
  EXPECT_TRUE(CheckpointFolder(folder.path()).list().empty());
}

TEST(CheckpointFailure, RanksThatDisagreeAboutBoxes) {
  const TemporaryFolder folder;
  const auto write = [&](const std::function<void(std::vector<CheckpointTensor<const float>>&)>& spoil) {
    std::vector<std::string> messages(3);
    run_on_threads(3, [&](Communicator& world) {
      const SampleBoxes boxes(sample_layouts(), in_runs(3), world.rank());
      auto tensors = boxes.to_write();
      if (world.rank() == 2) spoil(tensors);
      try {
        write_checkpoint(folder / "a.h5", sample_record(), tensors, world);
      } catch (const CheckpointWriteError& error) {
        messages[static_cast<std::size_t>(world.rank())] = error.what();
      }
    });
    EXPECT_EQ(messages[0], messages[1]);
    EXPECT_EQ(messages[0], messages[2]);
    EXPECT_TRUE(fs::is_empty(folder.path()));
    return messages[0];
  };

  EXPECT_THAT(write([](auto& tensors) { tensors[1].boxes[0].values = {}; }), HasSubstr("has 0 elements"));
  EXPECT_THAT(write([](auto& tensors) { tensors[1].boxes.clear(); }), HasSubstr("0 ranks write box"));
  EXPECT_THAT(write([](auto& tensors) { tensors[1].boxes.push_back(tensors[1].boxes[0]); }),
              HasSubstr("2 ranks write box"));
  EXPECT_THAT(write([](auto& tensors) { tensors[1].boxes[0].split_part = 9; }), HasSubstr("has no box"));
  EXPECT_THAT(write([](auto& tensors) { tensors.pop_back(); }), HasSubstr("describe different checkpoints"));
  EXPECT_THAT(write([](auto& tensors) { tensors[1].layout.inner = 5; }), HasSubstr("does not fit its shape"));
  EXPECT_THAT(write([](auto& tensors) { tensors.push_back(tensors[1]); }), HasSubstr("is given twice"));
}

/// Passes everything on to another communicator and lets a test act before each collective.
class Meddler : public Communicator {
 public:
  Meddler(Communicator& inner, std::function<void()> act) : inner_(inner), act_(std::move(act)) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string transport() const override { return inner_.transport(); }
  void abandon(const std::string& reason) noexcept override { inner_.abandon(reason); }

 protected:
  std::unique_ptr<Communicator> do_split(int, int) override { return nullptr; }
  void do_barrier() override { inner_.barrier(); }
  void do_broadcast(void* values, std::size_t count, ElementType type, int root) override {
    inner_.broadcast(std::span(static_cast<char*>(values), count * size_of(type)), root);
  }
  void do_all_gather(const void* part, std::size_t count, ElementType type, const TakePiece& take) override {
    act_();
    const std::size_t element = size_of(type);
    inner_.all_gather_pieces(std::span(static_cast<const std::byte*>(part), count * element),
                             [&](int rank, std::size_t first, std::span<const std::byte> values) {
                               take(rank, first / element, values.data(), values.size() / element);
                             });
  }
  void do_all_to_all(const void*, void*, std::size_t, ElementType) override {}
  void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) override {
    check(type == ElementType::int64, "the writer sums 64-bit integers only");
    inner_.all_reduce(std::span(static_cast<std::int64_t*>(values), count), reduction);
  }
  void do_reduce_scatter(const void*, void*, std::size_t, ElementType) override {}

 private:
  Communicator& inner_;
  std::function<void()> act_;
};

TEST(CheckpointFailure, WhatTheDiskReturnsIsComparedBeforeTheCommit) {
  const TemporaryFolder folder;
  write_sample(folder / "a.h5");
  const std::string before = bytes_of(folder / "a.h5");
  const float number = 1 * 4096 + 255 + 0.25f;  // the last one of lstm0/W_x, the second tensor
  const std::string target(reinterpret_cast<const char*>(&number), sizeof number);
  int spoiled = 0;
  const auto spoil_once = [&] {
    std::string bytes = bytes_of(folder / "a.h5.partial");
    const auto place = bytes.find(target);
    if (spoiled > 0 || place == std::string::npos) return;
    std::fstream file(folder / "a.h5.partial", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(place)).put(static_cast<char>(bytes[place] ^ 4));
    ++spoiled;
  };

  const std::string message =
      write_error(folder / "a.h5", 2, [&](Communicator& world) -> std::unique_ptr<Communicator> {
        return std::make_unique<Meddler>(world,
                                         world.rank() == 1 ? spoil_once : std::function<void()>([] {}));
      });

  EXPECT_EQ(spoiled, 1);
  EXPECT_THAT(message, HasSubstr("/parameters/lstm0/W_x does not match its digest"));
  EXPECT_EQ(bytes_of(folder / "a.h5"), before);
  EXPECT_FALSE(fs::exists(folder / "a.h5.partial"));
}

TEST(CheckpointFailure, APeerThatDiesLeavesNoCheckpoint) {
  const TemporaryFolder folder;
  int died = 0;
  const auto die_while_writing = [&] {
    if (!fs::exists(folder / "a.h5.partial")) return;
    ++died;
    throw UserError("rank 1 has other things to do");
  };

  EXPECT_ANY_THROW(run_on_threads(2, [&](Communicator& world) {
    Meddler meddler(world, world.rank() == 1 ? die_while_writing : std::function<void()>([] {}));
    const SampleBoxes boxes(sample_layouts(), in_runs(2), world.rank());
    write_checkpoint(folder / "a.h5", sample_record(), boxes.to_write(), meddler);
  }));

  EXPECT_EQ(died, 1);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace lamina
