// Checkpoints: one HDF5 file per step in global coordinates, so that any grid can load it. io/README.md
// specifies the format for other readers. Goals: complete or absent, every bit checked, independent of the
// grid. Non-goals: compression, partial models, appending.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
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

/// The same tensors, to be written.
std::vector<CheckpointTensor<const float>> read_only(const std::vector<CheckpointTensor<float>>& tensors);

/// What a run is, beside its tensors.
struct CheckpointRecord {
  std::int64_t step = 0;
  std::uint64_t seed = 0;
  int lane_groups = 1;
  int unit_blocks = 8;
  int batch = 1;
  std::int64_t epoch = 0;                 ///< passes over the training text that are complete
  std::int64_t chunk = 0;                 ///< lane cursor: the next chunk of every lane
  std::optional<double> validation_loss;  ///< of these parameters, where it is known
  std::string configuration;              ///< TOML
  std::vector<char32_t> vocabulary;
  std::string build;        ///< program version and libraries
  std::string text_digest;  ///< of the training text; empty where an earlier program did not keep it
};

/// Which checkpoints of a folder are kept; each rule keeps its own.
struct RetentionPolicy {
  int keep_last = 0;            ///< the newest ones (0: all)
  std::int64_t keep_every = 0;  ///< those whose step is a multiple (0: none)
  bool keep_best = false;       ///< the one with the lowest validation loss, of equal ones the newest
};

/// Where checkpoints of a run live.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder);

  /// Makes the folder and proves that a file can be written there. Throws UserError, which names the `flag`
  /// that gave the folder.
  void prepare(const std::string& flag = "--checkpoint") const;
  /// Complete checkpoints, by step, ascending; partial and set-aside files are not listed.
  std::vector<std::filesystem::path> list() const;
  /// What set_aside() has put aside, by step.
  std::vector<std::filesystem::path> list_set_aside() const;
  std::filesystem::path file_of(std::int64_t step) const;  ///< "step-00001200.h5"
  /// Removes leftovers of interrupted writes ("….h5.partial").
  void remove_partials() const;
  /// Removes checkpoints that no rule keeps, but never the newest one that is whole. Reads the records that
  /// it needs, each once. Throws UserError.
  void prune(const RetentionPolicy& policy);
  /// Renames a damaged file to "….h5.damaged" (never deletes) and returns the new name.
  static std::filesystem::path set_aside(const std::filesystem::path& file);
  const std::filesystem::path& path() const { return folder_; }

 private:
  /// What is in a file that prune() has looked into.
  struct Content {
    std::filesystem::file_time_type written{};
    bool is_whole = false, is_readable = true;
    std::optional<double> validation_loss{};
  };

  const Content& content_of(const std::filesystem::path& file);
  std::optional<std::filesystem::path> newest_whole(const std::vector<std::filesystem::path>& files);
  std::optional<std::filesystem::path> best(const std::vector<std::filesystem::path>& files);

  std::filesystem::path folder_;
  std::map<std::filesystem::path, Content> known_;
};

/// The checkpoints that a person names: a file, or all of a folder, by step. Throws UserError where the
/// folder has none.
std::vector<std::filesystem::path> checkpoints_at(const std::filesystem::path& file_or_folder);

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

/// How the numbers reach the file: each rank by the system's calls, or through parallel HDF5 over MPI-IO
/// (only where `world` is one of MPI).
enum class CheckpointIo : std::uint8_t { posix, mpi_io };

/// One checkpoint on its way, by the commit protocol of io/README.md: digests, skeleton, write and fsync,
/// read back and compare, rename, fsync of the folder. The work of a stage is done by one thread of each
/// rank, which uses neither MPI nor `world`; between stages the ranks meet in advance(). Made, advanced and
/// ended by all ranks alike.
class CheckpointSave {
 public:
  /// Begins. What `tensors` point to must stay as it is until the save is complete or gone. Not collective.
  CheckpointSave(std::filesystem::path file, CheckpointRecord record,
                 std::vector<CheckpointTensor<const float>> tensors, Communicator& world,
                 CheckpointIo io = CheckpointIo::posix);
  CheckpointSave(CheckpointSave&&) noexcept;
  CheckpointSave& operator=(CheckpointSave&&) noexcept;
  /// A save that is not complete waits for this rank's thread and removes the partial file.
  ~CheckpointSave();

  /// Whether this rank's part of the present stage has ended: advance() will not wait for this rank's disk.
  bool is_idle() const;
  /// Ends the present stage, waiting for all ranks, and begins the next. Collective; throws
  /// CheckpointWriteError on every rank alike, when the partial file is gone.
  void advance();
  bool is_complete() const;  ///< equal on all ranks
  void finish();             ///< advances until complete

  /// Rank 0's thread does `work` when the checkpoint counts and before the save is complete: to remove older
  /// files, for instance, which takes its time. To be called before the first advance(), by any rank.
  void then(std::function<void()> work);
  /// What that work threw, on rank 0; the checkpoint counts all the same.
  const std::string& warning() const;
  CheckpointCost cost() const;

 private:
  class Protocol;
  std::unique_ptr<Protocol> protocol_;
};

/// A CheckpointSave from begin to end. Collective over `world`; throws CheckpointWriteError on every rank
/// alike.
CheckpointCost write_checkpoint(const std::filesystem::path& file, const CheckpointRecord& record,
                                const std::vector<CheckpointTensor<const float>>& tensors,
                                Communicator& world, CheckpointIo io = CheckpointIo::posix);

/// Writes small checkpoints through MPI-IO into `folder` and compares what comes back, where the MPI library
/// is one that is known to write wrong bytes; elsewhere does nothing. Collective; throws UserError on every
/// rank alike.
void probe_parallel_io(const std::filesystem::path& folder, Communicator& world);

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
