// A thread beside a rank's own, which ends the process when the rank cannot do so itself: it hangs in a
// library, its end does not end, or mpirun is gone and nobody is left to end it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/communicators/watch.h"

namespace lamina {

/// A line on stderr before the process ends, whatever state it is in.
void say_last(const std::string& sentence);

/// Ends the process with `code` and `sentence` (none where it is empty) unless destroyed within `limit`.
class LastResort {
 public:
  LastResort(std::chrono::milliseconds limit, int code, std::string sentence);

 private:
  std::mutex mutex_;
  std::condition_variable_any ended_;
  std::jthread thread_;
};

class Watchdog {
 public:
  /// How long after its deadline a rank may need to find that out itself, and after an alarm to end.
  struct Patience {
    std::chrono::milliseconds grace{5000}, end{15000};
  };

  explicit Watchdog(int rank) : Watchdog(rank, Patience()) {}
  Watchdog(int rank, Patience patience);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// From now on, one at a time, until look_away(), before which its memory must not go.
  void watch_over(std::shared_ptr<Watch> watch);
  void look_away();

 private:
  void run(const std::stop_token& stop);
  void look();
  void look_for_launcher() const;
  [[noreturn]] void end_process(const std::string& sentence) const;

  int rank_;
  Patience patience_;
  pid_t launcher_;
  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::shared_ptr<Watch> watch_;
  std::chrono::steady_clock::time_point alarm_seen_{};
  std::jthread thread_;
};

}  // namespace lamina
