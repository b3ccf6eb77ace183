// Errors, in three kinds: the user's (a sentence that helps), ours (a failed check with its place), and a
// peer's (another rank failed first). main() turns each into an exit code.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace lamina {

/// Exit codes of the program; the README's table lists the same.
enum class ExitCode : int {
  done = 0,
  internal_error = 1,
  user_error = 2,
  damaged_checkpoint = 3,
  preempted_and_saved = 4,
  peer_lost = 5,
  non_finite_loss = 6,
  checkpoint_not_written = 7,  ///< training ended, but its last checkpoint could not be written
  replicas_differ = 8,         ///< ranks that must hold equal parameters do not
};

/// Something a person can mend: what came, what is allowed, what to do. One sentence, no place in the source.
class UserError : public std::runtime_error {
 public:
  explicit UserError(const std::string& sentence, ExitCode code = ExitCode::user_error)
      : std::runtime_error(sentence), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Another rank of the group failed, did not come in time, or called another collective; this rank cannot go
/// on.
class PeerError : public std::runtime_error {
 public:
  explicit PeerError(const std::string& sentence, bool speaks_first = false)
      : std::runtime_error(sentence), speaks_first_(speaks_first) {}
  /// Of all ranks that hear of it this one is to say it; the others only where it is not heard.
  bool speaks_first() const { return speaks_first_; }

 private:
  bool speaks_first_;
};

/// Our own bug, or a library's: names the place. Thrown by check().
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws InternalError with the caller's file and line unless `condition` holds.
void check(bool condition, const std::string& what,
           std::source_location place = std::source_location::current());
/// As above; makes no string while all is well.
inline void check(bool condition, const char* what,
                  std::source_location place = std::source_location::current()) {
  if (!condition) check(false, std::string(what), place);
}

}  // namespace lamina
