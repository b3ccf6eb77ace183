#include "launch/supervisor/mpirun.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>

#include "launch/supervisor/words.h"
#include "runtime/error.h"

namespace lamina {
namespace {

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }
bool is_one(const char* variable) { return is_set(variable) && std::getenv(variable) == std::string("1"); }

/// Open MPI's own mpirun starts nothing for root unless it is told twice; a stand-in for it may tell it.
void require_permission(const std::vector<std::string>& words) {
  const bool is_told =
      (is_one("OMPI_ALLOW_RUN_AS_ROOT") && is_one("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")) ||
      std::ranges::any_of(words, [](const auto& word) { return word.ends_with("-allow-run-as-root"); });
  const std::string name = std::filesystem::path(words.front()).filename().string();
  if (geteuid() != 0 || is_told || (name != "mpirun" && name != "mpiexec")) return;
  throw UserError(
      fmt::format("{} starts nothing as root: run lamina as another user, or, where root is meant, as in a "
                  "container, set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                  words.front()));
}

}  // namespace

std::vector<std::string> start_of_mpirun(const std::string& mpirun, int ranks, const JobFolder& job) {
  std::vector<std::string> words = words_of(mpirun);
  require_permission(words);
  append(words, {"-n", std::to_string(ranks), "--bind-to", "none", "-x", kJobVariable});
  for (const char* place : {"orte_tmpdir_base", "btl_vader_backing_directory", "osc_sm_backing_directory"})
    append(words, {"--mca", place, job.path().string()});
  return words;
}

void add_this_machine(std::vector<std::string>& words, int ranks) {
  if (batch_system_places_ranks()) return;
  append(words, {"--oversubscribe"});
  if (ranks > cores()) append(words, {"--mca", "mpi_yield_when_idle", "1"});
}

bool batch_system_places_ranks() { return is_set("SLURM_JOB_ID"); }

bool is_started_by_mpirun() { return is_set("OMPI_COMM_WORLD_RANK") || is_set("PMIX_RANK"); }

std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

int cores() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace lamina
