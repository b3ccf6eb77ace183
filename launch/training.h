// One training run on this rank: what is trained, on what, how far it is, and the steps the loop is made of.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "io/metrics.h"
#include "launch/checkpointing.h"
#include "launch/corpus.h"
#include "launch/progress.h"
#include "launch/resume.h"
#include "launch/train.h"
#include "runtime/gradient_sync.h"

namespace lamina {

/// A run on this rank: what is trained, on what, and how far it is.
class Training {
 public:
  Training(const Configuration& configuration, std::optional<CheckpointFolder> folder,
           std::optional<ResumePoint> point, const Progress& progress, Communicator& world);

  std::int64_t step() const { return step_; }
  TrainingResult result() const { return {step_, loss_, gradient_norm_, last_checkpoint_written_}; }

  void begin();       ///< from the resume point, or anew with a checkpoint of step 0
  void train_step();  ///< one update
  void report();      ///< loss and speed since the last report
  void validate();    ///< loss on the held-out text
  void save();        ///< a checkpoint; when it fails, training goes on

 private:
  bool resume(ResumePoint point);
  void begin_folder();
  void write_checkpoint();
  void summarize();
  double forward_backward();
  CheckpointRecord record() const;
  RunTensors tensors() { return {model_, &optimizer_, &state_}; }
  double communication_seconds() {
    return grid_.model().time_spent().seconds + grid_.data().time_spent().seconds;
  }

  Configuration configuration_;
  std::optional<CheckpointFolder> folder_;
  std::optional<ResumePoint> point_;
  Progress progress_;
  ProcessGrid grid_;
  int threads_;
  std::unique_ptr<Backend> backend_;
  Corpus corpus_;
  TrainingLanes lanes_;
  std::optional<EvaluationLanes> validation_lanes_;
  LanguageModel model_;
  Optimizer optimizer_;
  GradientSync gradient_sync_;
  CarriedState state_;
  LaneBatch batch_;
  std::optional<MetricsFile> metrics_;  // rank 0 only

  std::int64_t step_ = 0;
  double loss_ = 0, gradient_norm_ = 0, learning_rate_ = 0;
  bool last_checkpoint_written_ = true;

  struct Interval {
    std::chrono::steady_clock::time_point start;
    double loss = 0;  // sum over steps
    double communication = 0;
    std::int64_t steps = 0;
  } interval_;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace lamina
