// lamina benchmark checkpoint: rates of writing and reading checkpoints.
#pragma once

#include <string>

#include "launch/setting.h"
#include "runtime/communicator.h"

namespace lamina {

struct CheckpointBenchmarkSettings {
  std::string folder;
  double gigabytes = 1;
  std::string io = "posix";
  int repetitions = 3;
  std::string json;

  template <class Visitor>
  void visit(Visitor& v) {
    v("folder", folder, "where to write; nothing stays there");
    v("gigabytes", gigabytes, "size of the model's checkpoint, in GiB");
    v.choice("io", io, {"posix", "mpi-io"}, "how the ranks write into the file");
    v("repetitions", repetitions, "times that everything is measured, in turn");
    v("json", json, "also write the figures to this file");
  }
  void validate() const;
};

/// Writes and reads checkpoints of a model-like set of tensors as a run does and, in turn with that, the same
/// bytes without any format; prints both rates and their ratio. Collective.
void benchmark_checkpoint(const CheckpointBenchmarkSettings& settings, Communicator& world);

}  // namespace lamina
