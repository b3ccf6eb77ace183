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

namespace lamina::checkpoint {
namespace {

/// Calls a system function until no signal interrupts it. Throws on failure.
template <class Call>
auto system_call(const std::string& attempt, const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  if (result < 0) throw std::runtime_error(fmt::format("{}: {}", attempt, std::strerror(errno)));
  return result;
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

Descriptor::Descriptor(const std::filesystem::path& file, int flags)
    : descriptor_(
          system_call("cannot open it", [&] { return ::open(file.c_str(), flags | O_CLOEXEC, 0666); })) {}

Descriptor::~Descriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Descriptor::close() {
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR)
    throw std::runtime_error(fmt::format("cannot close it: {}", std::strerror(errno)));
}

void write_at(const Descriptor& file, std::int64_t place, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        system_call("cannot write it", [&] { return ::pwrite(file, bytes.data(), bytes.size(), place); });
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    place += written;
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
  int result = ::fallocate(file, 0, 0, size);
  while (result != 0 && errno == EINTR) result = ::fallocate(file, 0, 0, size);
  if (result == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return;
  const std::string reason = std::strerror(errno);
  throw std::runtime_error(fmt::format("{}; it needs {:.1f} MB{}", reason,
                                       megabytes(static_cast<double>(size)), free_space_note(path)));
}

void resize(const Descriptor& file, std::int64_t size) {
  system_call("cannot set its size", [&] { return ::ftruncate(file, size); });
}

void synchronize(const std::filesystem::path& file_or_folder) {
  const Descriptor descriptor(file_or_folder, O_RDONLY);
  const bool is_folder = std::filesystem::is_directory(file_or_folder);
  system_call("cannot synchronize it with the disk", [&] {
    const int result = ::fsync(descriptor);
    return is_folder && result != 0 && errno == EINVAL ? 0 : result;  // a file system without this need
  });
}

}  // namespace lamina::checkpoint
