// A run's tensors in host memory, between the device and a file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launch/checkpointing.h"

namespace lamina {

class RunStaging {
 public:
  /// The boxes that this rank needs: to write, where each box of the run has one writer, or to load, where
  /// each rank has all of its own.
  enum class Purpose : std::uint8_t { write, load };

  /// Takes the memory, and no numbers yet.
  RunStaging(RunTensors run, Backend& backend, ProcessGrid& grid, Purpose purpose);

  const std::vector<CheckpointTensor<float>>& tensors() const { return tensors_; }
  std::vector<CheckpointTensor<const float>> written() const { return read_only(tensors_); }

  void collect();     ///< from the device
  void distribute();  ///< to the device

 private:
  struct Copy {
    std::span<float> device, host;
    bool full_h;
  };

  void add_table(const std::string& prefix, std::span<float> arena);
  bool is_staged(int number, const Parameter& parameter, int block) const;
  std::int64_t staged_size() const;
  void add_state(int layer);
  void add_lanes(const std::string& path, std::span<float> device, const Share& held, const Share& wanted);
  std::span<float> allocate(std::size_t size);
  void add_copy(std::span<float> device, std::span<float> host);
  void reorder(std::span<float> values, bool to_boxes) const;

  RunTensors run_;
  Backend& backend_;
  ProcessGrid& grid_;
  Purpose purpose_;
  std::vector<CheckpointTensor<float>> tensors_;
  std::vector<std::vector<float>> memory_;
  std::vector<Copy> copies_;
};

}  // namespace lamina
