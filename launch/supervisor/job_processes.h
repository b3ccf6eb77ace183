// What belongs to a job on this machine: processes that carry its mark in their environment, and a folder.
#pragma once

#include <filesystem>
#include <string>

namespace lamina {

/// The environment variable that marks every process of a job.
inline constexpr const char* kJobVariable = "LAMINA_JOB";

/// Ranks of the job that run on this machine.
int ranks_here(const std::string& job);
/// Kills every process of the job on this machine and waits, some seconds at most, until they are gone.
void kill_processes(const std::string& job);
/// A script for sh that kills the job's processes and mpirun's daemon on another machine and removes its
/// folder.
std::string cleaning_script(const std::string& job, const std::filesystem::path& folder);

/// A folder in memory for all that a job's processes share: session files of mpirun and shared memory. Its
/// name is the job's mark. What supervisors that were killed left behind goes when a new folder is made.
class JobFolder {
 public:
  /// Throws UserError where no folder can be made.
  JobFolder();
  /// Removes it.
  ~JobFolder();
  JobFolder(const JobFolder&) = delete;
  JobFolder& operator=(const JobFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string job() const { return path_.filename().string(); }
  /// Removes what is in it.
  void clear() const;

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace lamina
