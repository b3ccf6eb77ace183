// What a person can set of a supervisor.
#pragma once

#include <string>

namespace lamina {

struct LaunchSettings {
  int ranks = 0;
  std::string hosts;
  int max_restarts = 5;
  double backoff = 1;
  int grace = 300;
  int end_timeout = 30;
  int host_timeout = 10;
  std::string mpirun = "mpirun";
  std::string remote_agent;

  template <class Visitor>
  void visit(Visitor& v) {
    v("ranks", ranks, "ranks of the job (0: as many as the hosts' slots allow)");
    v("hosts", hosts,
      "mpirun's hostfile, a line NAME slots=N for each host; one that does not answer is left out");
    v("max-restarts", max_restarts, "restarts without a newer checkpoint between them");
    v("backoff", backoff,
      "seconds before the first restart, doubled up to 60 until there is a newer checkpoint");
    v("grace", grace, "seconds that the ranks may take to save after SIGTERM, SIGINT or SIGUSR1");
    v("end-timeout", end_timeout,
      "seconds until a dead link, or an mpirun that lives on without its ranks, is noticed");
    v("host-timeout", host_timeout, "seconds within which a host must answer");
    v("mpirun", mpirun, "mpirun, and further options for it");
    v("remote-agent", remote_agent,
      "program that runs commands on the hosts (empty: OMPI_MCA_plm_rsh_agent, or ssh)");
  }

  /// Throws UserError on a value out of range.
  void validate() const;
};

}  // namespace lamina
