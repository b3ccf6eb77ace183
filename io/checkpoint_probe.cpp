#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <numeric>

#include "io/checkpoint.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/mpi_io_doubt.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

constexpr int kFiles = 8;
constexpr int kParts = 8;

/// Odd sizes of a few KiB, split by rows, by columns and into lanes: what is spoiled, where something is.
std::vector<TensorLayout> probe_layouts() {
  const auto layout = [](const char* path, std::int64_t outer, std::int64_t split, std::int64_t inner,
                         int outer_parts) {
    return TensorLayout{path, {outer, split * inner}, outer, split, inner, outer_parts, kParts};
  };
  return {layout("/parameters/a", 9, 12, 1, 1),  layout("/parameters/b", 4, 12, 12, 1),
          layout("/parameters/c", 1, 97, 9, 1),  layout("/parameters/d", 10, 13, 1, 2),
          layout("/parameters/e", 63, 41, 1, 1), layout("/parameters/f", 4, 24, 1, 1)};
}

/// The boxes of one rank of a checkpoint whose numbers all differ.
class ProbeCheckpoint {
 public:
  ProbeCheckpoint(int number, const Communicator& world) {
    float next = static_cast<float>(1 + number + 1000 * world.rank());
    for (const TensorLayout& layout : probe_layouts()) {
      auto& tensor = tensors_.emplace_back(CheckpointTensor<const float>{layout, {}});
      for (int box = 0; box < checkpoint::box_count(layout); ++box) {
        if ((number % 2 == 0 ? box * world.size() / checkpoint::box_count(layout) : box % world.size()) !=
            world.rank())
          continue;
        const int outer_part = box / kParts, split_part = box % kParts;
        auto& values =
            memory_.emplace_back(static_cast<std::size_t>(layout.box_size(outer_part, split_part)));
        std::iota(values.begin(), values.end(), next);
        next += static_cast<float>(values.size());
        tensor.boxes.push_back({outer_part, split_part, values});
      }
    }
  }

  const std::vector<CheckpointTensor<const float>>& tensors() const { return tensors_; }

 private:
  std::vector<std::vector<float>> memory_;  // moving a vector keeps its elements in place
  std::vector<CheckpointTensor<const float>> tensors_;
};

void remove_probe(const fs::path& file, Communicator& world) {
  std::error_code ignored;
  if (world.rank() == 0) fs::remove(file, ignored);
  world.barrier();
}

}  // namespace

bool checkpoint::is_in_doubt(const std::string& mpi) {
  std::array<int, 3> version{};
  if (!mpi.starts_with("Open MPI")) return false;
  if (std::sscanf(mpi.c_str(), "Open MPI v%d.%d.%d", &version[0], &version[1], &version[2]) != 3) return true;
  return version < std::array{4, 1, 7} || (version >= std::array{5, 0, 0} && version < std::array{5, 0, 6});
}

void probe_parallel_io(const fs::path& folder, Communicator& world) {
  const std::string mpi = mpi_library();
  if (!checkpoint::is_in_doubt(mpi)) return;
  const fs::path file = folder / ".probe-mpi-io.h5";
  try {
    for (int number = 0; number < kFiles; ++number) {
      const ProbeCheckpoint probe(number, world);
      CheckpointRecord record;
      record.step = number;
      write_checkpoint(file, record, probe.tensors(), world, CheckpointIo::mpi_io);
    }
  } catch (const CheckpointWriteError& error) {
    remove_probe(file, world);
    throw UserError(fmt::format("MPI-IO of {} failed its test in {} ({}): give --checkpoint-io posix",
                                mpi.substr(0, mpi.find(',')), folder.string(), error.what()));
  }
  remove_probe(file, world);
}

}  // namespace lamina
