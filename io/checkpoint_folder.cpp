#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "io/checkpoint.h"
#include "io/checkpoint/disk.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

const std::string kStart = "step-", kEnd = ".h5", kPartial = ".h5.partial";

/// The step in "step-<digits><end>"; none for any other name.
std::optional<std::int64_t> step_of(const std::string& name, const std::string& end) {
  if (!name.starts_with(kStart) || !name.ends_with(end) || name.size() < kStart.size() + 8 + end.size())
    return std::nullopt;
  const char* first = name.data() + kStart.size();
  const char* last = name.data() + name.size() - end.size();
  std::int64_t step = 0;
  const auto [stop, error] = std::from_chars(first, last, step);
  if (error != std::errc() || stop != last || step < 0) return std::nullopt;
  return step;
}

/// Regular files of the folder whose names are "step-<digits><end>", by step.
std::vector<fs::path> files_by_step(const fs::path& folder, const std::string& end) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), none; !error && entry != none; entry.increment(error)) {
    const auto step = step_of(entry->path().filename().string(), end);
    if (step && entry->is_regular_file()) found.emplace_back(*step, entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw UserError(fmt::format("the checkpoint folder {} cannot be listed: {}; check its permissions",
                                folder.string(), error.message()));
  std::ranges::sort(found);
  std::vector<fs::path> files;
  for (auto& [step, file] : found) files.push_back(std::move(file));
  return files;
}

void remove_file(const fs::path& file) {
  std::error_code error;
  fs::remove(file, error);
  if (error)
    throw UserError(fmt::format("{} cannot be removed: {}; check the permissions of its folder",
                                file.string(), error.message()));
}

}  // namespace

CheckpointFolder::CheckpointFolder(fs::path folder) : folder_(std::move(folder)) {}

void CheckpointFolder::prepare() const {
  const fs::path probe = folder_ / fmt::format(".probe-{}", ::getpid());
  std::error_code ignored;
  try {
    fs::create_directories(folder_);
    checkpoint::Descriptor file(probe, O_RDWR | O_CREAT | O_TRUNC);
    checkpoint::reserve(file, 1, folder_);
    file.close();
    checkpoint::synchronize(probe);
  } catch (const fs::filesystem_error& error) {
    throw UserError(
        fmt::format("the checkpoint folder {} cannot be made: {}; give --checkpoint a path that can "
                    "be written",
                    folder_.string(), error.code().message()));
  } catch (const std::runtime_error& error) {
    fs::remove(probe, ignored);
    throw UserError(
        fmt::format("no file can be written to the checkpoint folder {}: {}; free space there or "
                    "give --checkpoint another path",
                    folder_.string(), error.what()));
  }
  remove_file(probe);
}

std::vector<fs::path> CheckpointFolder::list() const { return files_by_step(folder_, kEnd); }

fs::path CheckpointFolder::file_of(std::int64_t step) const {
  return folder_ / fmt::format("{}{:08}{}", kStart, step, kEnd);
}

void CheckpointFolder::remove_partials() const {
  for (const fs::path& file : files_by_step(folder_, kPartial)) remove_file(file);
}

void CheckpointFolder::prune(int keep) const {
  check(keep >= 0, "prune: a negative number of checkpoints to keep");
  const std::vector<fs::path> files = list();
  if (keep == 0) return;
  const std::size_t kept = std::min(files.size(), static_cast<std::size_t>(keep));
  for (std::size_t i = 0; i < files.size() - kept; ++i) remove_file(files[i]);
}

fs::path CheckpointFolder::set_aside(const fs::path& file) {
  fs::path target = file;
  target += ".damaged";
  for (int number = 2; fs::exists(target); ++number)
    target = fs::path(file) += fmt::format(".damaged-{}", number);
  std::error_code error;
  fs::rename(file, target, error);
  if (error)
    throw UserError(fmt::format("the damaged checkpoint {} cannot be renamed: {}; move it out of its folder",
                                file.string(), error.message()));
  return target;
}

}  // namespace lamina
