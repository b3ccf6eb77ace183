// Arrays for NumPy: one in a .npy, or many in a .npz (a zip archive of them, stored without compression).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace lamina {

/// Writes float32 arrays in C order to a .npy or .npz, by the ending of its name. The file is complete or
/// absent: it has another name until commit(), and goes with this object when that is not reached. Every
/// member throws UserError when the file cannot be written.
class NumpyWriter {
 public:
  /// Throws UserError on another ending, and when `file` exists unless `overwrite`.
  NumpyWriter(std::filesystem::path file, bool overwrite);
  ~NumpyWriter();
  NumpyWriter(const NumpyWriter&) = delete;
  NumpyWriter& operator=(const NumpyWriter&) = delete;

  bool holds_one() const;  ///< whether it is a .npy, to which exactly one array is added
  /// `values` are as many as the product of `shape`. `name` is the array's key in a .npz, given once.
  void add(const std::string& name, std::span<const std::int64_t> shape, std::span<const float> values);
  /// Brings the file to the disk and gives it its name.
  void commit();

 private:
  class Output;

  std::filesystem::path file_;
  std::unique_ptr<Output> output_;
};

}  // namespace lamina
