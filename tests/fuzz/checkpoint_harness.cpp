#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <stdexcept>

#include "io/checkpoint.h"
#include "io/checkpoint/metadata.h"
#include "runtime/error.h"
#include "tests/fuzz/harness.h"
#include "tests/io/sample_checkpoint.h"

namespace lamina::fuzz {
namespace {

template <class Work>
void tolerating_refusals(const Work& work) {
  try {
    work();
  } catch (const UserError&) {
  } catch (const DamagedCheckpoint&) {
  }
}

void read_all_ways(const std::filesystem::path& file) {
  tolerating_refusals([&] { read_record(file); });
  tolerating_refusals([&] { verify_checkpoint(file); });
  tolerating_refusals([&] {
    std::vector<std::string> paths;
    for (const TensorShape& tensor : tensors_of(file)) paths.push_back(tensor.path);
    read_tensors(file, paths, [](const WholeTensor&) {});
  });
  tolerating_refusals([&] {
    static const std::unique_ptr<Communicator> self = make_self_communicator();
    SampleBoxes boxes(sample_layouts(), all_on(0), 0);
    read_checkpoint(file, boxes.to_read(), *self);
  });
}

std::uint64_t number_at(std::span<const std::uint8_t> file, std::size_t place, std::size_t bytes) {
  std::uint64_t value = 0;
  if (place <= file.size() && bytes <= file.size() - place) std::memcpy(&value, &file[place], bytes);
  return value;
}

bool lies_in(std::span<const std::uint8_t> file, std::uint64_t place, std::uint64_t size) {
  return size <= file.size() && place <= file.size() - size;
}

struct Block {
  std::uint64_t messages, end;  ///< without the checksum
};

void repair(std::span<std::uint8_t> file, std::uint64_t place, std::uint64_t size) {
  if (!lies_in(file, place, size) || size < 4) return;
  const std::uint32_t sum = checkpoint::metadata_checksum(std::as_bytes(file.subspan(place, size - 4)));
  std::memcpy(&file[place + size - 4], &sum, sizeof sum);
}

/// Repairs the blocks that the messages of a block continue in, and that block last.
void repair_object(std::span<std::uint8_t> file, std::size_t place) {
  const std::uint64_t flags = number_at(file, place + 5, 1);
  const std::size_t size_at = place + 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
  const std::size_t width = std::size_t{1} << (flags & 3);
  const std::uint64_t prefix = size_at + width - place, size = number_at(file, size_at, width);
  if (!lies_in(file, place, prefix) || size > file.size()) return;
  std::deque<Block> blocks = {{place + prefix, place + prefix + size}};
  repair(file, place, prefix + size + 4);
  for (std::size_t seen = 0; seen < blocks.size() && seen < 64; ++seen) {
    const Block block = blocks[seen];
    for (std::uint64_t at = block.messages; at + 4 <= block.end;) {
      const std::uint64_t length = number_at(file, at + 1, 2);
      if (number_at(file, at, 1) == 0x10 && length == 16) {
        const std::uint64_t next = number_at(file, at + 4, 8), bytes = number_at(file, at + 12, 8);
        repair(file, next, bytes);
        if (lies_in(file, next, bytes) && bytes > 8) blocks.push_back({next + 4, next + bytes - 4});
      }
      at += 4 + length;
    }
  }
}

}  // namespace

MemoryFile::MemoryFile(Bytes bytes) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
  if (descriptor_ < 0 ||
      ::write(descriptor_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    throw std::logic_error("no file in memory");
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

std::filesystem::path MemoryFile::path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

void repair_checksums(std::span<std::uint8_t> file) {
  if (file.size() < 48) return;
  const std::uint64_t size = file.size();
  std::memcpy(&file[28], &size, sizeof size);
  repair(file, 0, 48);
  for (std::size_t place = 0; place + 8 < file.size(); ++place)
    if (std::memcmp(&file[place], "OHDR", 4) == 0) repair_object(file, place);
}

void checkpoint(Bytes bytes) {
  const MemoryFile file(bytes);
  read_all_ways(file.path());
}

}  // namespace lamina::fuzz
