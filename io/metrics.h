// Metrics for programs: one JSON object per line, appended and flushed record by record.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
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
  /// No file: records go nowhere. `resumed_step`: records of later steps in an existing file are dropped
  /// first, so that a resumed run's file has each step once; without it an existing file is begun anew.
  /// Throws UserError when the path cannot be written, or what is there has other content.
  MetricsFile(const std::filesystem::path& file, std::optional<std::int64_t> resumed_step);
  /// Throws UserError when the record cannot be written, e.g. on a full disk.
  void write(const TrainingRecord& record);
  void write(const ValidationRecord& record);

 private:
  void write_line(const std::string& line);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace lamina
