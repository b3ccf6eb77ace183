#include "launch/commands/benchmark/raw_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/error.h"

namespace lamina {
namespace {

constexpr std::size_t kPiece = 16u << 20;

class File {
 public:
  File(const std::filesystem::path& name, int flags)
      : name_(name), descriptor_(::open(name.c_str(), flags | O_CLOEXEC, 0666)) {
    require(descriptor_ >= 0, "opened");
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  operator int() const { return descriptor_; }
  void require(bool success, const char* what) const {
    if (!success)
      throw UserError(fmt::format("{} cannot be {}: {}; give another --folder", name_.string(), what,
                                  std::strerror(errno)));
  }

 private:
  std::filesystem::path name_;
  int descriptor_;
};

}  // namespace

void write_raw(const std::filesystem::path& file, std::int64_t place, std::span<const std::byte> bytes) {
  const File out(file, O_WRONLY | O_CREAT);
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(out, bytes.data(), std::min(bytes.size(), kPiece), place);
    out.require(written > 0, "written");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    place += written;
  }
  out.require(::fsync(out) == 0, "brought to the disk");
}

void read_raw(const std::filesystem::path& file, std::int64_t place, std::span<std::byte> bytes) {
  const File in(file, O_RDONLY);
  while (!bytes.empty()) {
    const ssize_t read = ::pread(in, bytes.data(), std::min(bytes.size(), kPiece), place);
    in.require(read > 0, "read");
    bytes = bytes.subspan(static_cast<std::size_t>(read));
    place += read;
  }
}

void drop_from_cache(const std::filesystem::path& file) {
  const File dropped(file, O_RDONLY);
  dropped.require(::fsync(dropped) == 0, "brought to the disk");
  dropped.require(::posix_fadvise(dropped, 0, 0, POSIX_FADV_DONTNEED) == 0, "dropped from memory");
}

}  // namespace lamina
