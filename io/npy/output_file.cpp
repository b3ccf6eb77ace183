#include "io/npy/output_file.h"

#include <fcntl.h>

#include <stdexcept>
#include <system_error>

namespace lamina::npy {
namespace {

namespace fs = std::filesystem;

fs::path partial_of(fs::path file) {
  file += ".partial";
  fs::remove(file);
  return file;
}

}  // namespace

OutputFile::OutputFile(const fs::path& file)
    : file_(file), partial_(partial_of(file)), descriptor_(partial_, O_WRONLY | O_CREAT | O_EXCL) {}

OutputFile::~OutputFile() {
  std::error_code ignored;
  if (!committed_) fs::remove(partial_, ignored);
}

void OutputFile::append(std::span<const std::byte> bytes) {
  try {
    checkpoint::write_at(descriptor_, size_, bytes);
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + checkpoint::free_space_note(partial_));
  }
  size_ += static_cast<std::int64_t>(bytes.size());
}

void OutputFile::commit() {
  checkpoint::synchronize(partial_);
  descriptor_.close();
  fs::rename(partial_, file_);
  committed_ = true;
  checkpoint::synchronize(file_.has_parent_path() ? file_.parent_path() : fs::path("."));
}

}  // namespace lamina::npy
