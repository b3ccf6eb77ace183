#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <limits>
#include <optional>
#include <span>

#include "io/checkpoint.h"
#include "io/checkpoint/disk.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

const std::string kStart = "step-", kEnd = ".h5", kPartial = ".h5.partial", kDamaged = ".damaged";

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

/// `name` without the end that set_aside() gave it; empty where it has none.
std::string name_before_damage(const std::string& name) {
  const std::size_t end = name.find(kDamaged);
  return end == std::string::npos ? "" : name.substr(0, end);
}

/// Regular files of the folder for whose names step_of(name) is set, by step.
template <class StepOf>
std::vector<fs::path> files_by_step(const fs::path& folder, const StepOf& step_of) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), none; !error && entry != none; entry.increment(error)) {
    const std::optional<std::int64_t> step = step_of(entry->path().filename().string());
    std::error_code not_known;
    if (step && entry->is_regular_file(not_known)) found.emplace_back(*step, entry->path());
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

void CheckpointFolder::prepare(const std::string& flag) const {
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
        fmt::format("the checkpoint folder {} cannot be made: {}; give {} a path that can be written",
                    folder_.string(), error.code().message(), flag));
  } catch (const std::runtime_error& error) {
    fs::remove(probe, ignored);
    throw UserError(
        fmt::format("no file can be written to the checkpoint folder {}: {}; free space there or "
                    "give {} another path",
                    folder_.string(), error.what(), flag));
  }
  remove_file(probe);
}

std::vector<fs::path> CheckpointFolder::list() const {
  return files_by_step(folder_, [](const std::string& name) { return step_of(name, kEnd); });
}

std::vector<fs::path> CheckpointFolder::list_set_aside() const {
  return files_by_step(folder_,
                       [](const std::string& name) { return step_of(name_before_damage(name), kEnd); });
}

fs::path CheckpointFolder::file_of(std::int64_t step) const {
  return folder_ / fmt::format("{}{:08}{}", kStart, step, kEnd);
}

void CheckpointFolder::remove_partials() const {
  const auto partial_step = [](const std::string& name) { return step_of(name, kPartial); };
  for (const fs::path& file : files_by_step(folder_, partial_step)) remove_file(file);
}

const CheckpointFolder::Content& CheckpointFolder::content_of(const fs::path& file) {
  std::error_code error;
  const fs::file_time_type written = fs::last_write_time(file, error);
  const auto known = known_.find(file);
  if (known != known_.end() && known->second.written == written && known->second.is_readable)
    return known->second;
  Content content{.written = written};
  try {
    content.validation_loss = read_record(file).validation_loss;
    content.is_whole = true;
  } catch (const DamagedCheckpoint&) {
  } catch (const UserError&) {  // locked, or its disk does not answer: it may be the best one
    content.is_readable = false;
  }
  return known_[file] = content;
}

std::optional<fs::path> CheckpointFolder::newest_whole(const std::vector<fs::path>& files) {
  const auto found = std::find_if(files.rbegin(), files.rend(),
                                  [&](const fs::path& file) { return content_of(file).is_whole; });
  return found == files.rend() ? std::nullopt : std::optional(*found);
}

std::optional<fs::path> CheckpointFolder::best(const std::vector<fs::path>& files) {
  std::optional<fs::path> best;
  double lowest = std::numeric_limits<double>::infinity();
  for (const fs::path& file : files) {
    const std::optional<double> loss = content_of(file).validation_loss;
    if (!loss || !(*loss <= lowest)) continue;
    lowest = *loss;
    best = file;
  }
  return best;
}

void CheckpointFolder::prune(const RetentionPolicy& policy) {
  check(policy.keep_last >= 0 && policy.keep_every >= 0, "prune: a negative number");
  if (policy.keep_last == 0) return;
  const std::vector<fs::path> files = list();
  const std::size_t last = std::min(files.size(), static_cast<std::size_t>(policy.keep_last));
  const auto newest = newest_whole(files);
  const auto lowest = policy.keep_best ? best(files) : std::nullopt;
  std::exception_ptr first_failure;
  for (const fs::path& file : std::span(files).first(files.size() - last)) {
    const std::int64_t step = *step_of(file.filename().string(), kEnd);
    if (policy.keep_every > 0 && step % policy.keep_every == 0) continue;
    if (file == newest || file == lowest || (policy.keep_best && !content_of(file).is_readable)) continue;
    try {
      remove_file(file);
    } catch (const UserError&) {  // the others may still go
      if (!first_failure) first_failure = std::current_exception();
    }
    known_.erase(file);
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

fs::path CheckpointFolder::set_aside(const fs::path& file) {
  fs::path target = file;
  target += kDamaged;
  std::error_code error;
  for (int number = 2; fs::exists(target, error); ++number)
    target = fs::path(file) += fmt::format("{}-{}", kDamaged, number);
  fs::rename(file, target, error);
  if (error)
    throw UserError(fmt::format("the damaged checkpoint {} cannot be renamed: {}; move it out of its folder",
                                file.string(), error.message()));
  return target;
}

std::vector<fs::path> checkpoints_at(const fs::path& file_or_folder) {
  std::error_code is_told_by_who_reads_it;
  if (!fs::is_directory(file_or_folder, is_told_by_who_reads_it)) return {file_or_folder};
  std::vector<fs::path> files = CheckpointFolder(file_or_folder).list();
  if (files.empty())
    throw UserError(fmt::format("{} holds no checkpoint: give a checkpoint file or the folder of a run",
                                file_or_folder.string()));
  return files;
}

}  // namespace lamina
