#include "runtime/communicators/process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace lamina {
namespace {

struct ProcessLine {
  std::string name;
  char state = 0;
  pid_t parent = 0;
};

// "4711 (a name) S 4710 …": the name may hold anything, brackets too.
ProcessLine read_process(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text, '\0');
  const std::size_t open = text.find('('), close = text.rfind(')');
  ProcessLine line;
  if (open == std::string::npos || close == std::string::npos) return line;
  line.name = text.substr(open + 1, close - open - 1);
  std::istringstream(text.substr(close + 1)) >> line.state >> line.parent;
  return line;
}

bool is_launcher(const std::string& name) {
  constexpr std::array kLaunchers{"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "slurmstepd"};
  return std::find(kLaunchers.begin(), kLaunchers.end(), name) != kLaunchers.end();
}

}  // namespace

char process_state(pid_t pid) { return read_process(pid).state; }

bool has_ended(pid_t pid) {
  const char state = process_state(pid);
  return state == 0 || state == 'Z' || state == 'X';
}

pid_t launcher_of_this_process() {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr && std::getenv("PMIX_RANK") == nullptr) return 0;
  // A shell or a tool may stand between.
  for (pid_t pid = getppid(); pid > 1;) {
    const ProcessLine line = read_process(pid);
    if (is_launcher(line.name)) return pid;
    pid = line.parent;
  }
  return getppid();
}

}  // namespace lamina
