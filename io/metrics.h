// Metrics for programs: one JSON object per line, appended and flushed record by record.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace lamina {

/// One interval of training. seconds: since the start of this process's training.
struct TrainingRecord {
  std::int64_t step = 0;
  double loss = 0;  ///< mean over the interval's predictions, nats
  double gradient_norm = 0, learning_rate = 0, tokens_per_second = 0, communication_share = 0, seconds = 0;
};
struct ValidationRecord {
  std::int64_t step = 0;
  double loss = 0;
  std::int64_t predictions = 0;
  double seconds = 0;
};

double bits_per_character(double nats);

class MetricsFile {
 public:
  /// No file: records go nowhere. `resumed_step`: of what is in the file only the records up to that step
  /// stay, so that a resumed run's file has each step once; without it none stays. They go with the first
  /// write: a run that does not come so far leaves the file as it was. Throws UserError when the path cannot
  /// be written, or what is there has other content.
  MetricsFile(const std::filesystem::path& file, std::optional<std::int64_t> resumed_step);
  /// A record that cannot be written, as on a full disk, waits for the next that can. Returns why, for the
  /// first that waits; else nothing.
  std::string write(const TrainingRecord& record);
  std::string write(const ValidationRecord& record);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string write_line(const std::string& line);
  bool write_waiting();

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::optional<std::uintmax_t> kept_;  ///< size of what stays, until the rest has gone
  std::string waiting_;
  bool is_failing_ = false;
};

}  // namespace lamina
