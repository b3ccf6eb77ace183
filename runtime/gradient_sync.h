// Sums of gradients over the passes of a step and over the data axis, in the fixed tree of lane groups.
#pragma once

#include <memory>
#include <vector>

#include "runtime/backend.h"
#include "runtime/communicator.h"
#include "runtime/parameter.h"

namespace lamina {

/// A pass leaves the gradients of its lane groups in the table; passes are merged as they come, like a binary
/// counter, then ranks of the data axis. With one pass and one rank nothing is copied. What the last pass
/// leaves is summed over the ranks while its backward pass goes on.
class GradientSync {
 public:
  /// `passes`: per step, a power of two. `data_axis` outlives the backend. Collective over it.
  GradientSync(int passes, ParameterTable& table, Backend& backend, Communicator& data_axis);

  /// A pass, in order of lane groups, has left its gradients of `range` in the table: they are not to be
  /// touched until finish(), but by the next pass. Every pass comes with the same ranges, which make up the
  /// table, on all ranks in the same order.
  void add(ParameterRange range);
  /// Moves the sums on: to be called now and then.
  void advance() { sums_->advance(); }
  /// Other exchanges come next, as in BackgroundSums.
  void pause() { sums_->pause(); }
  /// After the last pass, by parameter: whether a gradient of this rank, before ranks were summed, was not
  /// finite. Waits for the device.
  std::vector<bool> non_finite_of_rank();
  /// After the last pass: the table holds the gradients of the whole batch, on every rank. Collective.
  void finish();

 private:
  void merge_pass(ParameterRange range);

  int passes_;
  int added_ = 0;    ///< passes
  int covered_ = 0;  ///< parameters of the present pass
  ParameterTable& table_;
  Backend& backend_;
  std::unique_ptr<BackgroundSums> sums_;
  std::unique_ptr<FiniteChecks> checks_;
  std::vector<Buffer<float>> pending_;  ///< [level]: the sum of 2^level passes that waits for its sibling
};

}  // namespace lamina
