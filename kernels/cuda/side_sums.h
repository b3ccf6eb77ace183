// BackgroundSums of a GPU: kernels and copies over NCCL on a stream of their own.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/side_stream.h"
#include "kernels/cuda/tree_all_reduce.h"
#include "runtime/background_sums.h"

namespace lamina::cuda {

class SideSums final : public BackgroundSums {
 public:
  /// Arrays of at most `most` elements. `exchange` only puts work on streams, and nothing else is exchanged
  /// between ranks from add() to finish(): of two exchanges at once, ranks might begin different ones first
  /// and wait for each other. Both outlive it.
  SideSums(Device& device, Exchange& exchange, std::size_t most);

  /// Begins at once.
  void add(std::span<float> values) override;
  void advance() override {}
  void pause() override {}
  void finish() override { side_.join(); }

 private:
  TreeAllReduce sums_;
  SideStream side_;
};

/// SideSums for a device whose layers exchange, too: what was added begins at advance(), and what comes later
/// on the device's own stream than pause() or finish() begins when it is over. So the order of all exchanges
/// is that of the program, on every rank.
class SideSumsInTurns final : public BackgroundSums {
 public:
  /// As SideSums, but between ranks nothing else is exchanged from advance() to pause() only.
  SideSumsInTurns(Device& device, Exchange& exchange, std::size_t most) : sums_(device, exchange, most) {}

  void add(std::span<float> values) override;
  void advance() override;
  void pause() override { sums_.finish(); }
  void finish() override;

 private:
  SideSums sums_;
  std::vector<std::span<float>> waiting_;
};

}  // namespace lamina::cuda
