// The timeline of one training step on all ranks, as a file that chrome://tracing and ui.perfetto.dev show.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/progress.h"
#include "runtime/communicator.h"
#include "runtime/trace.h"

namespace lamina {

class StepTrace {
 public:
  /// Traces `step` (0: the third of this start, or its last) into `file`; no file: nothing. `first` to `last`
  /// are the steps of this start. Throws UserError on every rank alike where the file cannot be written, or
  /// the step is none of them. Collective.
  StepTrace(std::string file, std::int64_t step, std::int64_t first, std::int64_t last, int threads,
            const Progress& progress, Communicator& world);

  /// The present step is over and `step` begins. Collective.
  void begin(std::int64_t step);
  /// The present step is over. Where it was the one to trace, rank 0 writes the file; training survives when
  /// it cannot. Collective.
  void end();
  /// end(), and tells when the step to trace never came.
  void finish();

 private:
  /// The step is traced for as long as this lives.
  struct Recording {
    explicit Recording(TraceRecorder& recorder) : scope(&recorder) {}
    TraceScope scope;
    Span step{SpanKind::other, "step"};
  };
  void write();

  std::string file_;
  std::int64_t step_;
  Progress progress_;
  Communicator& world_;
  std::optional<TraceRecorder> recorder_;
  std::optional<Recording> recording_;
};

}  // namespace lamina
