// The machines of a job: mpirun's hostfile, which of them are there, and how to clean them.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace lamina {

struct Host {
  std::string name;
  int slots = 0;  ///< ranks it may carry
};

/// Reads lines "name slots=N"; "#" begins a comment. A host that is listed again gets more slots. Throws
/// UserError naming the file and the line.
std::vector<Host> read_hosts(const std::string& file);
/// The same lines again.
std::string hostfile_of(const std::vector<Host>& hosts);
int slots_of(const std::vector<Host>& hosts);

/// A command that runs words on another machine: AGENT HOST WORDS, as ssh does.
struct RemoteAgent {
  std::string command;            ///< its words, separated by blanks
  std::chrono::seconds limit{0};  ///< a host that takes longer is not there
};

/// Runs `script` (for sh) on every host but this machine, at once, and returns those where it succeeded in
/// time, this machine included.
std::vector<Host> answering(const std::vector<Host>& hosts, const RemoteAgent& agent,
                            const std::string& script);

/// Whether `name` is a name or an address of this machine.
bool is_this_machine(const std::string& name);

}  // namespace lamina
