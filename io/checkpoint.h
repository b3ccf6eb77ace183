// Checkpoints: one HDF5 file per step in global coordinates, so that any grid can load it. io/README.md
// specifies the format for other readers. Goals: complete or absent, every bit checked, independent of the
// grid. Non-goals: compression, partial models, appending.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/communicator.h"

namespace lamina {

/// A global tensor seen as [outer, split, inner], cut into outer_parts x split_parts boxes. Boxes are the
/// unit of writing, reading and digests, and do not depend on the grid. Part p of an extent n in m parts is
/// [min(n, p*ceil(n/m)), min(n, (p+1)*ceil(n/m))).
struct TensorLayout {
  std::string path;                 ///< "/parameters/lstm0/W_h"
  std::vector<std::int64_t> shape;  ///< of the dataset; its product is outer * split * inner
  std::int64_t outer = 1, split = 1, inner = 1;
  int outer_parts = 1, split_parts = 1;

  std::int64_t box_size(int outer_part, int split_part) const;
};

/// One box in this rank's memory: contiguous, row-major [outer part, split part, inner].
template <class T>
struct TensorBox {
  int outer_part = 0, split_part = 0;
  std::span<T> values;  ///< box_size() elements, host memory
};

/// A tensor and the boxes of it that this rank writes (each box exactly one rank) or wants (any).
template <class T>
struct CheckpointTensor {
  TensorLayout layout;
  std::vector<TensorBox<T>> boxes;
};

/// What a run is, beside its tensors.
struct CheckpointRecord {
  std::int64_t step = 0;
  std::uint64_t seed = 0;
  int lane_groups = 1;
  int unit_blocks = 8;
  int batch = 1;
  std::int64_t epoch = 0;     ///< passes over the training text that are complete
  std::int64_t chunk = 0;     ///< lane cursor: the next chunk of every lane
  std::string configuration;  ///< TOML
  std::vector<char32_t> vocabulary;
  std::string build;  ///< program version and libraries
};

/// Where checkpoints of a run live.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder);

  /// Makes the folder and proves that a file can be written there. Throws UserError.
  void prepare() const;
  /// Complete checkpoints, by step, ascending; partial and set-aside files are not listed.
  std::vector<std::filesystem::path> list() const;
  std::filesystem::path file_of(std::int64_t step) const;  ///< "step-00001200.h5"
  /// Removes leftovers of interrupted writes ("….h5.partial").
  void remove_partials() const;
  /// Removes all but the newest `keep` checkpoints (0: keeps all).
  void prune(int keep) const;
  /// Renames a damaged file to "….h5.damaged" (never deletes) and returns the new name.
  static std::filesystem::path set_aside(const std::filesystem::path& file);
  const std::filesystem::path& path() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

/// A checkpoint could not be written; nothing was committed, older ones are untouched.
class CheckpointWriteError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// A file is not a whole checkpoint: names the file, and the damaged tensor or what is wrong.
class DamagedCheckpoint : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct CheckpointCost {
  double seconds = 0;
  std::int64_t bytes = 0;  ///< of tensor data, all ranks
};

/// Writes `file` by the commit protocol: partial file, agreement, flush, read back and compare digests,
/// rename, fsync of the folder. Collective over `world`; throws CheckpointWriteError on every rank alike.
CheckpointCost write_checkpoint(const std::filesystem::path& file, const CheckpointRecord& record,
                                const std::vector<CheckpointTensor<const float>>& tensors,
                                Communicator& world);

/// The record of a checkpoint, after the file's structure, sizes and root digest have been checked (tensor
/// data is not read). Throws DamagedCheckpoint; UserError when the file is missing, foreign or of another
/// version.
CheckpointRecord read_record(const std::filesystem::path& file);

/// Fills the boxes, checking each against its digest. Every tensor must be there with exactly that layout.
/// Collective; throws on every rank alike: DamagedCheckpoint, or UserError when the model differs (naming the
/// tensor and both shapes).
void read_checkpoint(const std::filesystem::path& file, const std::vector<CheckpointTensor<float>>& tensors,
                     Communicator& world);

struct TensorSummary {
  std::string path;
  std::vector<std::int64_t> shape;
  double minimum = 0, maximum = 0, mean = 0;
  std::string digest;  ///< XXH3-128 over the digests of its boxes, hexadecimal
};
struct CheckpointSummary {
  CheckpointRecord record;
  std::vector<TensorSummary> tensors;
  std::string root_digest;
};

/// Reads and checks every tensor of one file on this rank alone. Throws DamagedCheckpoint or UserError.
CheckpointSummary verify_checkpoint(const std::filesystem::path& file);

/// A tensor with all its numbers, row-major.
struct WholeTensor {
  std::string path;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

struct TensorShape {
  std::string path;
  std::vector<std::int64_t> shape;
};

/// All tensors in ascending order of path, after the checks of read_record(). Throws as it does.
std::vector<TensorShape> tensors_of(const std::filesystem::path& file);

/// Calls visit(tensor) for every tensor of `paths`, which are in the file, on this rank alone: one at a time
/// is in memory, every digest of it checked. Throws DamagedCheckpoint or UserError, and what `visit` throws.
void read_tensors(const std::filesystem::path& file, const std::vector<std::string>& paths,
                  const std::function<void(const WholeTensor& tensor)>& visit);

/// "HDF5 1.10.8, parallel": for `lamina info`.
std::string hdf5_library();

}  // namespace lamina
