#include "launch/output_files.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "launch/setting.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

/// One path for all that lead to a file, which need not exist yet.
fs::path canonical(const std::string& file) {
  std::error_code error;
  const fs::path found = fs::weakly_canonical(fs::absolute(file, error), error);
  return error ? fs::path(file) : found;
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code none;
  if (fs::is_character_file(a, none)) return false;
  return fs::equivalent(a, b, none) || canonical(a) == canonical(b);
}

void require_apart(const NamedFile& output, const NamedFile& other) {
  if (output.file.empty() || other.file.empty()) return;
  require(!is_same_file(output.file, other.file),
          fmt::format("--{0} and --{1} are the same file, {2}, and --{0} would replace what is in it: give "
                      "another --{0}",
                      output.flag, other.flag, output.file));
}

}  // namespace

void require_apart(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs) {
  for (auto output = outputs.begin(); output != outputs.end(); ++output) {
    for (const NamedFile& input : inputs) require_apart(*output, input);
    for (auto other = outputs.begin(); other != output; ++other) require_apart(*output, *other);
  }
}

}  // namespace lamina
