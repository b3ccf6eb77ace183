// Sums of gradients over the passes of a step and over the data axis, in the fixed tree of lane groups.
#pragma once

#include <vector>

#include "runtime/backend.h"
#include "runtime/communicator.h"
#include "runtime/parameter.h"

namespace lamina {

/// A pass leaves the gradients of its lane groups in the table; passes are merged as they come, like a binary
/// counter, then ranks of the data axis. With one pass and one rank nothing is copied.
class GradientSync {
 public:
  /// `passes`: per step, a power of two.
  GradientSync(int passes, ParameterTable& table, Backend& backend);

  /// After each pass's backward(), in order of lane groups.
  void add_pass();
  /// After the last pass: the table holds the gradients of the whole batch, on every rank. Collective.
  void finish(Communicator& data_axis);

 private:
  int passes_;
  int added_ = 0;
  ParameterTable& table_;
  Backend& backend_;
  std::vector<Buffer<float>> pending_;  ///< [level]: the sum of 2^level passes that waits for its sibling
};

}  // namespace lamina
