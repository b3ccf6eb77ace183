// HDF5 with every call checked. All names of the library stay behind this folder.
#pragma once

#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <string>

namespace lamina::hdf5 {

/// A failed call: what was tried, and HDF5's innermost message or the system's.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& attempt);
  /// The file system refused a lock: nothing is wrong with the file.
  bool is_lock() const { return is_lock_; }

 private:
  Error(const std::string& attempt, const std::string& message);
  bool is_lock_;
};

/// HDF5 is not thread-safe and ranks may be threads: every use of it, handles included, lies within one of
/// these. Never nested.
class Section {
 public:
  Section();

 private:
  std::unique_lock<std::mutex> lock_;
};

/// Begins the library. It speaks to MPI then, so the thread that does so must come first.
void begin();

/// Throws Error when an HDF5 call reports failure by a negative result.
template <class Result>
Result require(Result result, const std::string& attempt) {
  if (result < 0) throw Error(attempt);
  return result;
}

/// An HDF5 identifier, owned.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);

  /// Throws Error when `id` is that of a failed call.
  Handle(hid_t id, Close how_to_close, const std::string& attempt);
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  ~Handle();

  operator hid_t() const { return id_; }
  /// Where a late failure matters, i.e. after writing. Throws Error.
  void close(const std::string& attempt);

 private:
  hid_t id_;
  Close close_;
};

/// Access of one process through the system's calls. Without locks: a committed file never changes, and some
/// network file systems refuse them.
Handle serial_access();
/// The same for writing numbers, unbuffered: a refused write fails in the call that asked for it, and is not
/// tried again when the file closes.
Handle serial_write_access();
/// Access of a group of processes through MPI-IO; `communicator` points to the MPI_Comm. Collective.
Handle parallel_access(const void* communicator);

Handle open_file(const std::filesystem::path& file, unsigned flags, hid_t access);
Handle open_dataset(hid_t file, const std::string& path);
/// Flushes and closes, both in any case: each is collective under parallel access. Throws Error.
void finish(Handle& file);

}  // namespace lamina::hdf5
