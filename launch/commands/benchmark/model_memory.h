// The memory of a model as training has it, without a model: for measurements.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/checkpoint.h"
#include "runtime/communicator.h"

namespace lamina {

/// Parameters and moments of a two-layer LSTM whose checkpoint has about the wished size, split by hidden
/// unit over all ranks.
class ModelMemory {
 public:
  ModelMemory(double gigabytes, const Communicator& world);

  const std::vector<CheckpointTensor<float>>& tensors() const { return tensors_; }
  std::vector<CheckpointTensor<const float>> written() const { return read_only(tensors_); }
  /// This rank's share, without gaps.
  std::span<float> all() { return memory_; }
  std::int64_t hidden() const { return hidden_; }
  int unit_blocks() const { return unit_blocks_; }

 private:
  void add(const std::string& path, std::vector<std::int64_t> shape, std::int64_t outer, std::int64_t split,
           std::int64_t inner);
  void place_boxes(const Communicator& world);

  std::int64_t hidden_;
  int unit_blocks_;
  std::vector<CheckpointTensor<float>> tensors_;
  std::vector<float> memory_;
};

}  // namespace lamina
