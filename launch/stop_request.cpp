#include "launch/stop_request.h"

#include <csignal>

namespace lamina {
namespace {

// A signal reaches the process, not a rank: the one state that its handler may touch.
volatile std::sig_atomic_t requested = 0;

void on_signal(int) { requested = 1; }

}  // namespace

void listen_for_stop_requests() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
}

bool stop_requested() { return requested != 0; }

}  // namespace lamina
