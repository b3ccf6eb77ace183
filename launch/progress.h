// What a person sees of a training run: a summary first, then one status line per interval. Rank 0 only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lamina {

/// Facts for the summary at the start.
struct RunSummary {
  std::string task, data;
  std::int64_t training_characters = 0, validation_characters = 0;
  int vocabulary = 0;
  int data_ranks = 1, model_ranks = 1, lane_groups = 1, unit_blocks = 8, passes = 1;
  std::string transport;
  std::string device;  ///< with its threads: "AMD EPYC, AVX3, oneDNN 2.6.3, 4 threads"
  std::string model;   ///< "2-layer LSTM, 512 units, layer normalization, embedding 128"
  std::int64_t parameters = 0;
  double megabytes_per_rank = 0;  ///< parameters, gradients, optimizer state, saved activations
  std::int64_t batch = 0, time_steps = 0, steps = 0, first_step = 0;
  std::string checkpoint;  ///< folder, or empty
};

/// One interval.
struct Status {
  std::int64_t step = 0, steps = 0;
  double loss = 0;  ///< nats
  double gradient_norm = 0, learning_rate = 0, tokens_per_second = 0;
  double communication_share = 0;  ///< of the interval's time, this rank
  double seconds_left = 0;
};

/// The summary as aligned lines "  name  fact".
std::string summary_text(const RunSummary& summary);
/// "[#####-----]   500/1000  loss 1.523 nats  2.197 bpc  | 23.4k tok/s | norm 0.83 | lr 2.0e-03 | …"
std::string status_line(const Status& status);
/// "1m12s", "2h05m", "3d04h": two units at most.
std::string duration_text(double seconds);

class Progress {
 public:
  explicit Progress(bool shown) : shown_(shown) {}
  void summary(const RunSummary& summary) const;
  void status(const Status& status) const;
  void validation(std::int64_t step, double loss, std::int64_t predictions) const;
  /// `stall_seconds`: of those `seconds`, how long training waited.
  void checkpoint_written(const std::string& file, double seconds, double stall_seconds,
                          std::int64_t bytes) const;
  /// A plain line, e.g. where a run resumed from.
  void note(const std::string& line) const;
  /// To stderr: something went wrong that training survives.
  void warning(const std::string& line) const;

 private:
  bool shown_;
};

}  // namespace lamina
