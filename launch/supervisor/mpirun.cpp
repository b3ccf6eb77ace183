#include "launch/supervisor/mpirun.h"

#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <initializer_list>

#include "launch/supervisor/words.h"

namespace lamina {

std::vector<std::string> start_of_mpirun(const std::string& mpirun, int ranks, const JobFolder& job) {
  std::vector<std::string> words = words_of(mpirun);
  append(words, {"-n", std::to_string(ranks), "--bind-to", "none", "-x", kJobVariable});
  for (const char* place : {"orte_tmpdir_base", "btl_vader_backing_directory", "osc_sm_backing_directory"})
    append(words, {"--mca", place, job.path().string()});
  return words;
}

void add_this_machine(std::vector<std::string>& words, int ranks) {
  if (std::getenv("SLURM_JOB_ID") != nullptr) return;
  append(words, {"--oversubscribe"});
  if (ranks > cores()) append(words, {"--mca", "mpi_yield_when_idle", "1"});
}

bool is_started_by_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_RANK") != nullptr || std::getenv("PMIX_RANK") != nullptr;
}

std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

int cores() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace lamina
