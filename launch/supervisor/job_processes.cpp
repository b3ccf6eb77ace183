#include "launch/supervisor/job_processes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string_view>
#include <thread>
#include <utility>

#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using namespace std::literals;

constexpr std::string_view kPrefix = "lamina-job.";

/// An open file that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

/// "\0NAME=VALUE\0…\0"; only '\0' for a process that has ended or is another user's.
std::string environment_of(pid_t process) {
  std::ifstream in(fmt::format("/proc/{}/environ", process), std::ios::binary);
  return '\0' + std::string{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool has_mark(const std::string& environment, const std::string& job) {
  return environment.find("\0"s.append(kJobVariable) + "=" + job + '\0') != std::string::npos;
}

bool is_rank(const std::string& environment) {
  return environment.find("\0OMPI_COMM_WORLD_RANK="sv) != std::string::npos;
}

void for_each_process(const std::function<void(pid_t)>& visit) {
  std::error_code error;
  for (fs::directory_iterator entry("/proc", error), none; !error && entry != none; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    pid_t process = 0;
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data(), end, process).ptr == end) visit(process);
  }
}

/// Kills the process if it is still one of the job: by then its number may be another's.
bool kill_if_marked(pid_t process, const std::string& job) {
  const Descriptor handle(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (handle.number() < 0 || !has_mark(environment_of(process), job)) return false;
  return syscall(SYS_pidfd_send_signal, handle.number(), SIGKILL, nullptr, 0) == 0;
}

fs::path memory() { return fs::is_directory("/dev/shm") ? "/dev/shm" : fs::temp_directory_path(); }

/// Only where the supervisor is: on its other machines a job's folder has none, and is not ours to judge.
constexpr const char* kLock = "supervisor.lock";

/// Takes the lock of a job's folder, which lasts as long as its supervisor or mpirun.
bool take(const Descriptor& lock) { return flock(lock.number(), LOCK_EX | LOCK_NB) == 0; }

void remove_if_left(const fs::path& folder) {
  const Descriptor lock(open((folder / kLock).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (lock.number() < 0 || fstat(lock.number(), &status) != 0 || status.st_uid != geteuid()) return;
  std::error_code ignored;
  if (take(lock)) fs::remove_all(folder, ignored);
}

void remove_what_is_left() {
  std::error_code error;
  for (fs::directory_iterator entry(memory(), error), none; !error && entry != none; entry.increment(error))
    if (entry->path().filename().string().starts_with(kPrefix)) remove_if_left(entry->path());
}

}  // namespace

int ranks_here(const std::string& job) {
  int ranks = 0;
  for_each_process([&](pid_t process) {
    const std::string environment = environment_of(process);
    ranks += has_mark(environment, job) && is_rank(environment);
  });
  return ranks;
}

void kill_processes(const std::string& job) {
  for (const auto end = std::chrono::steady_clock::now() + 5s; std::chrono::steady_clock::now() < end;) {
    bool any = false;
    for_each_process([&](pid_t process) { any |= kill_if_marked(process, job); });
    if (!any) return;
    std::this_thread::sleep_for(20ms);
  }
}

std::string cleaning_script(const std::string& job, const fs::path& folder) {
  return fmt::format(
      "for p in /proc/[0-9]*; do "
      "if tr '\\0' '\\n' < $p/environ 2>/dev/null | grep -qxF {}={} || "
      "{{ grep -qx orted $p/comm && grep -qF {} $p/cmdline; }} 2>/dev/null; "
      "then kill -9 ${{p#/proc/}} 2>/dev/null; fi; done; "
      "if [ -d {} ]; then find {} -mindepth 1 ! -name {} -delete; rmdir {} 2>/dev/null; fi; true",
      kJobVariable, job, job, folder.string(), folder.string(), kLock, folder.string());
}

JobFolder::JobFolder() {
  remove_what_is_left();
  for (;;) {
    std::string name = (memory() / fmt::format("{}XXXXXX", kPrefix)).string();
    if (mkdtemp(name.data()) == nullptr)
      throw UserError(fmt::format("no folder for the job can be made in {}: {}; free some memory there",
                                  memory().string(), std::strerror(errno)));
    path_ = name;
    const fs::path file = path_ / kLock;
    Descriptor lock(open(file.c_str(), O_RDONLY | O_CREAT, 0600));        // mpirun inherits it
    if (lock.number() < 0 || !take(lock) || !fs::exists(file)) continue;  // another took it for a leftover
    lock_ = lock.release();
    return;
  }
}

JobFolder::~JobFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  close(lock_);
}

void JobFolder::clear() const {
  std::error_code error;
  for (fs::directory_iterator entry(path_, error), none; !error && entry != none; entry.increment(error))
    if (entry->path().filename() != kLock) fs::remove_all(entry->path(), error);
}

}  // namespace lamina
