#include "io/checkpoint/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "runtime/fault_point.h"

namespace lamina::checkpoint {
namespace {

std::runtime_error failure(const char* attempt, int error) {
  return std::runtime_error(fmt::format("{}: {}", attempt, std::strerror(error)));
}

void throw_injected_error(const char* attempt, FaultPoint point) {
  if (const int error = injected_error(point); error != 0) throw failure(attempt, error);
}

/// Calls a system function until no signal interrupts it. Throws on failure.
template <class Call>
auto system_call(const char* attempt, const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  if (result < 0) throw failure(attempt, errno);
  return result;
}

int open_file(const std::filesystem::path& file, int flags) {
  try {
    throw_injected_error("cannot open it", FaultPoint::file_open);
    return system_call("cannot open it", [&] { return ::open(file.c_str(), flags | O_CLOEXEC, 0666); });
  } catch (const std::runtime_error& error) {
    if ((flags & O_ACCMODE) == O_RDONLY) throw ReadError(error.what());
    throw;
  }
}

double megabytes(double bytes) { return bytes / 1e6; }

/// Beyond the limit, a signal would end the process.
void check_size_limit(std::int64_t size) {
  rlimit limit{};
  system_call("no limit", [&] { return ::getrlimit(RLIMIT_FSIZE, &limit); });
  if (limit.rlim_cur != RLIM_INFINITY && static_cast<rlim_t>(size) > limit.rlim_cur)
    throw std::runtime_error(fmt::format("{}; it needs {} bytes and this process may write {} (ulimit -f)",
                                         std::strerror(EFBIG), size, limit.rlim_cur));
}

}  // namespace

Descriptor::Descriptor(const std::filesystem::path& file, int flags) : descriptor_(open_file(file, flags)) {}

Descriptor::~Descriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Descriptor::close() {
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) throw failure("cannot close it", errno);
}

void write_at(const Descriptor& file, std::int64_t place, std::span<const std::byte> bytes) {
  throw_injected_error("cannot write it", FaultPoint::file_write);
  while (!bytes.empty()) {
    const ssize_t written =
        system_call("cannot write it", [&] { return ::pwrite(file, bytes.data(), bytes.size(), place); });
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    place += written;
  }
}

void read_at(const Descriptor& file, std::int64_t place, std::span<std::byte> bytes) {
  if (const int error = injected_error(FaultPoint::file_read); error != 0)
    throw ReadError(fmt::format("cannot read it: {}", std::strerror(error)));
  while (!bytes.empty()) {
    const ssize_t read = ::pread(file, bytes.data(), bytes.size(), place);
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) throw ReadError(fmt::format("cannot read it: {}", std::strerror(errno)));
    if (read == 0) throw std::runtime_error("cannot read it: it ends too early");
    bytes = bytes.subspan(static_cast<std::size_t>(read));
    place += read;
  }
}

std::string free_space_note(const std::filesystem::path& file_or_folder) {
  std::error_code error;
  const auto space = std::filesystem::space(file_or_folder, error);
  if (error) return "";
  return fmt::format("; {:.1f} MB are free on its disk", megabytes(static_cast<double>(space.available)));
}

void reserve(const Descriptor& file, std::int64_t size, const std::filesystem::path& path) {
  check_size_limit(size);
  throw_injected_error("cannot take space for it", FaultPoint::file_write);
  int result = ::fallocate(file, 0, 0, size);
  while (result != 0 && errno == EINTR) result = ::fallocate(file, 0, 0, size);
  if (result == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return;
  const std::string reason = std::strerror(errno);
  throw std::runtime_error(fmt::format("{}; it needs {:.1f} MB{}", reason,
                                       megabytes(static_cast<double>(size)), free_space_note(path)));
}

void resize(const Descriptor& file, std::int64_t size) {
  throw_injected_error("cannot set its size", FaultPoint::file_write);
  system_call("cannot set its size", [&] { return ::ftruncate(file, size); });
}

void begin_writeback(const Descriptor& file, std::int64_t place, std::int64_t size) {
  system_call("cannot bring it to the disk", [&] {
    const int result = ::sync_file_range(file, place, size, SYNC_FILE_RANGE_WRITE);
    return result != 0 && (errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP) ? 0 : result;
  });
}

void synchronize(const Descriptor& file) {
  throw_injected_error("cannot synchronize it with the disk", FaultPoint::file_sync);
  system_call("cannot synchronize it with the disk", [&] { return ::fsync(file); });
}

void synchronize(const std::filesystem::path& file_or_folder) {
  const Descriptor descriptor(file_or_folder, O_RDONLY);
  if (!std::filesystem::is_directory(file_or_folder)) return synchronize(descriptor);
  throw_injected_error("cannot synchronize its folder with the disk", FaultPoint::file_sync);
  system_call("cannot synchronize its folder with the disk", [&] {
    const int result = ::fsync(descriptor);
    return result != 0 && errno == EINVAL ? 0 : result;  // a file system without this need
  });
}

void rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  throw_injected_error("cannot rename the finished file", FaultPoint::file_rename);
  system_call("cannot rename the finished file", [&] { return ::rename(from.c_str(), to.c_str()); });
}

}  // namespace lamina::checkpoint
