#include "io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <optional>
#include <string>

#include "io/npy/output_file.h"
#include "io/npy/zip.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "numbers are stored as they lie in memory");

/// NumPy's format 1.0: what the numbers are, padded so that they begin at a multiple of 64 bytes.
std::string npy_header(std::span<const std::int64_t> shape) {
  constexpr std::size_t kPrefix = 10, kAlignment = 64;
  std::string text =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", fmt::join(shape, ", "));
  const std::size_t used = kPrefix + text.size() + 1;
  text.append((kAlignment - used % kAlignment) % kAlignment, ' ').append("\n");
  check(text.size() <= 0xFFFF, "a shape has too many dimensions for NumPy's format 1.0");
  const auto length = static_cast<std::uint16_t>(text.size());
  std::string header = "\x93NUMPY\x01";
  header += '\0';
  header += static_cast<char>(length & 0xFF);
  header += static_cast<char>(length >> 8);
  return header + text;
}

void refuse_unless_new(const fs::path& file, bool overwrite) {
  if (file.extension() != ".npy" && file.extension() != ".npz")
    throw UserError(
        fmt::format("the output {} ends neither in .npy (one tensor) nor in .npz (many); give it such a name",
                    file.string()));
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw UserError(fmt::format("the output {} exists and is not a file; give another name", file.string()));
  if (fs::exists(status) && !overwrite)
    throw UserError(
        fmt::format("the output {} exists; give --overwrite to replace it, or another name", file.string()));
}

/// Runs `work`; what the system refuses becomes one sentence.
template <class Work>
void writing(const fs::path& file, const Work& work) {
  try {
    work();
  } catch (const UserError&) {
    throw;
  } catch (const InternalError&) {
    throw;
  } catch (const fs::filesystem_error& error) {
    throw UserError(fmt::format("{} was not written: {}; check the path and its permissions", file.string(),
                                error.code().message()));
  } catch (const std::runtime_error& error) {
    throw UserError(
        fmt::format("{} was not written: {}; nothing is left of it", file.string(), error.what()));
  }
}

}  // namespace

class NumpyWriter::Output {
 public:
  explicit Output(const fs::path& file) : file_(file) {
    if (file.extension() == ".npz") zip_.emplace(file_);
  }

  bool is_archive() const { return zip_.has_value(); }

  void add(const std::string& name, const std::string& header, std::span<const float> values) {
    const auto start = std::as_bytes(std::span(header));
    if (zip_) {
      zip_->add(name + ".npy", {start, std::as_bytes(values)});
    } else {
      check(file_.size() == 0, "a second array for a .npy");
      file_.append(start);
      file_.append(std::as_bytes(values));
    }
  }

  void commit() {
    if (zip_) zip_->finish();
    file_.commit();
  }

 private:
  npy::OutputFile file_;
  std::optional<npy::ZipWriter> zip_;
};

NumpyWriter::NumpyWriter(fs::path file, bool overwrite) : file_(std::move(file)) {
  refuse_unless_new(file_, overwrite);
  writing(file_, [&] { output_ = std::make_unique<Output>(file_); });
}

NumpyWriter::~NumpyWriter() = default;

bool NumpyWriter::holds_one() const { return !output_->is_archive(); }

void NumpyWriter::add(const std::string& name, std::span<const std::int64_t> shape,
                      std::span<const float> values) {
  std::int64_t elements = 1;
  for (const std::int64_t size : shape) elements *= size;
  check(elements == static_cast<std::int64_t>(values.size()), name + " has another number of elements");
  writing(file_, [&] { output_->add(name, npy_header(shape), values); });
}

void NumpyWriter::commit() {
  writing(file_, [&] { output_->commit(); });
}

}  // namespace lamina
