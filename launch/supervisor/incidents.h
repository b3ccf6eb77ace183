// What went wrong in a run: a line on stderr and a JSON record for each time, and a list in the end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lamina {

struct Incident {
  int attempt = 1;
  int ranks = 1;
  double seconds = 0;                ///< that the job lasted
  std::string what;                  ///< how it ended
  std::optional<std::int64_t> step;  ///< of the newest checkpoint
  std::string next;                  ///< what happens now
};

class Incidents {
 public:
  /// Records go to incidents.jsonl in `folder`.
  explicit Incidents(std::filesystem::path folder) : file_(std::move(folder) / "incidents.jsonl") {}
  void report(const Incident& incident);
  /// All that were reported, one line each, when there is more than one.
  void list() const;

 private:
  std::filesystem::path file_;
  std::vector<std::string> lines_;
};

}  // namespace lamina
