#include "io/checkpoint/hdf5.h"

#include <fmt/format.h>

#include <bit>
#include <optional>
#include <utility>

namespace lamina::hdf5 {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored as they lie in memory");

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

herr_t keep_first(unsigned number, const H5E_error2_t* error, void* message) {
  if (number == 0 && error->desc != nullptr) *static_cast<std::string*>(message) = error->desc;
  return 0;
}

std::string innermost_message() {
  std::string message;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &message);
  H5Eclear2(H5E_DEFAULT);
  return message.empty() ? "HDF5 gives no reason" : message;
}

/// The system's text where HDF5 quotes it, else the first line.
std::string essence_of(const std::string& message) {
  const std::string quote = "error message = '";
  const auto start = message.find(quote);
  if (start == std::string::npos) return message.substr(0, message.find('\n'));
  const auto text = start + quote.size();
  return message.substr(text, message.find('\'', text) - text);
}

bool names_a_lock(const std::string& message) {
  return message.find("unable to lock file") != std::string::npos;
}

}  // namespace

Error::Error(const std::string& attempt) : Error(attempt, innermost_message()) {}

Error::Error(const std::string& attempt, const std::string& message)
    : std::runtime_error(fmt::format(
          "{}: {}{}", attempt, essence_of(message),
          names_a_lock(message) ? "; set the environment variable HDF5_USE_FILE_LOCKING=FALSE" : "")),
      is_lock_(names_a_lock(message)) {}

Section::Section() : lock_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

void begin() {
  static const bool done = [] {
    const Section section;
    require(H5open(), "HDF5 does not begin");
    return true;
  }();
  static_cast<void>(done);
}

Handle::Handle(hid_t id, Close how_to_close, const std::string& attempt)
    : id_(require(id, attempt)), close_(how_to_close) {}

Handle::Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

Handle::~Handle() {
  if (id_ >= 0) close_(id_);
}

void Handle::close(const std::string& attempt) {
  if (id_ >= 0) require(close_(std::exchange(id_, -1)), attempt);
}

Handle serial_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "file access settings");
  require(H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST), "file format setting");
  require(H5Pset_file_locking(access, false, true), "file locking setting");
  return access;
}

Handle serial_write_access() {
  Handle access = serial_access();
  require(H5Pset_sieve_buf_size(access, 0), "buffer setting");
  return access;
}

Handle parallel_access(const void* communicator) {
  Handle access = serial_access();
  require(H5Pset_fapl_mpio(access, *static_cast<const MPI_Comm*>(communicator), MPI_INFO_NULL),
          "MPI-IO access settings");
  return access;
}

Handle open_file(const std::filesystem::path& file, unsigned flags, hid_t access) {
  return {H5Fopen(file.c_str(), flags, access), H5Fclose, "cannot open it"};
}

Handle open_dataset(hid_t file, const std::string& path) {
  return {H5Dopen2(file, path.c_str(), H5P_DEFAULT), H5Dclose, fmt::format("cannot open {}", path)};
}

void finish(Handle& file) {
  std::optional<Error> failure;
  if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) failure.emplace("cannot flush it");
  file.close("cannot close it");
  if (failure) throw *failure;
}

}  // namespace lamina::hdf5
