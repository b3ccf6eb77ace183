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
#include "launch/run_saver.h"
#include "launch/step_agreement.h"
#include "launch/step_trace.h"
#include "launch/train.h"
#include "runtime/gradient_sync.h"

namespace lamina {

/// A run on this rank: what is trained, on what, and how far it is.
class Training {
 public:
  /// Without `corpus`, that of the configuration is read.
  Training(const Configuration& configuration, std::optional<CheckpointFolder> folder,
           std::optional<ResumePoint> point, const Progress& progress, Communicator& world,
           std::optional<Corpus> corpus = {});

  std::int64_t step() const { return step_; }
  ProcessGrid& grid() { return grid_; }
  int threads() const { return threads_; }
  Backend& backend() { return *backend_; }
  int vocabulary() const { return corpus_.vocabulary.size(); }
  /// Someone asked this job to save and end; all ranks say the same.
  bool stops() const { return agreement_.stop(); }

  void begin();          ///< from the resume point, or anew with a checkpoint of step 0
  bool train_step();     ///< one update; false where it went back to a checkpoint instead
  void report();         ///< loss and speed since the last report
  void validate();       ///< loss on the held-out text
  void save();           ///< begins a checkpoint; when it fails, training goes on
  TrainingResult end();  ///< after the last checkpoint is complete

  /// Stops the run where replicas along the data axis differ.
  void require_equal_replicas();

 private:
  void resume(ResumePoint point);
  void open_metrics(std::optional<std::int64_t> kept);
  template <class Record>
  void write_metrics(const Record& record);
  void summarize();
  void open_trace();
  bool advance();
  void prefetch(std::int64_t step);
  NonFinite forward_backward();
  void update();
  bool go_on_without_update();
  void skip();
  void roll_back();
  CheckpointRecord record() const;
  RunTensors tensors() { return {model_, &optimizer_, &state_}; }
  double communication_seconds() {
    return grid_.model().time_spent().seconds + grid_.data().time_spent().seconds;
  }

  Configuration configuration_;
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
  RunSaver saver_;
  LaneBatch batch_, next_batch_;
  std::optional<std::int64_t> next_batch_step_;  ///< steps done before that of next_batch_
  std::optional<MetricsFile> metrics_;           // rank 0 only
  std::optional<StepTrace> trace_;

  std::int64_t step_ = 0;
  double loss_ = 0, gradient_norm_ = 0, learning_rate_ = 0;
  std::optional<double> validation_loss_;  ///< of the present parameters
  StepAgreement agreement_;
  int skipped_in_a_row_ = 0;
  std::int64_t rolled_back_at_ = 0;  ///< the step that was not finite when the run last went back

  struct Interval {
    std::chrono::steady_clock::time_point start;
    double loss = 0;  // sum over updates
    double communication = 0;
    std::int64_t steps = 0, updates = 0;
  } interval_;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace lamina
