// Files of checkpoints by the system's calls, with the system's reason in every error (std::runtime_error).
// All of them pass the fault points file_open, file_write, file_sync and file_rename.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>

namespace lamina::checkpoint {

/// The disk does not give what it holds: nothing is known of the file then.
class ReadError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file descriptor, owned.
class Descriptor {
 public:
  /// As open(2). ReadError when it is opened to be read.
  Descriptor(const std::filesystem::path& file, int flags);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  operator int() const { return descriptor_; }
  /// Network file systems report late write errors here.
  void close();

 private:
  int descriptor_;
};

/// All of `bytes` at byte `place`.
void write_at(const Descriptor& file, std::int64_t place, std::span<const std::byte> bytes);
/// Fills `bytes` from byte `place`; throws where the file ends before.
void read_at(const Descriptor& file, std::int64_t place, std::span<std::byte> bytes);
/// "; 1.5 MB are free on its disk", or nothing where that is unknown.
std::string free_space_note(const std::filesystem::path& file_or_folder);

/// Takes `size` bytes of disk space for `file` (at `path`), where the file system can. Throws, saying how
/// much is free.
void reserve(const Descriptor& file, std::int64_t size, const std::filesystem::path& path);
void resize(const Descriptor& file, std::int64_t size);
/// Asks the disk to begin with these bytes, without waiting for it.
void begin_writeback(const Descriptor& file, std::int64_t place, std::int64_t size);
/// Until the file's content is on the disk.
void synchronize(const Descriptor& file);
/// Until the file's content, or a folder's names, are on the disk.
void synchronize(const std::filesystem::path& file_or_folder);
void rename(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace lamina::checkpoint
