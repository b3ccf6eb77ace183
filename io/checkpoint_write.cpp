#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <exception>
#include <optional>

#include "io/checkpoint.h"
#include "io/checkpoint/agreement.h"
#include "io/checkpoint/digest.h"
#include "io/checkpoint/disk.h"
#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/skeleton.h"
#include "io/checkpoint/structure.h"
#include "io/checkpoint/transfer.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using checkpoint::DescribedTensor;
using checkpoint::Digest;
using hdf5::Handle;
using Tensors = std::vector<CheckpointTensor<const float>>;

/// What went wrong; empty when nothing did.
std::string failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

/// The commit protocol, stage by stage; every rank passes a stage or none does.
class CheckpointWriter {
 public:
  CheckpointWriter(const fs::path& file, const CheckpointRecord& record, const Tensors& tensors,
                   Communicator& world)
      : file_(file), partial_(file), record_(record), tensors_(tensors), world_(world) {
    partial_ += ".partial";
    std::ranges::sort(tensors_, {}, [](const auto& tensor) { return tensor.layout.path; });
  }

  void write() {
    agree([&] { describe_tensors(); });
    check_same_description();
    share_digests();
    agree([&] { create_partial(); });
    agree([&] { check_partial_is_visible(); });
    if (world_.native_handle() != nullptr)
      write_in_parallel();
    else
      write_in_turn();
    agree([&] { read_back(); });
    agree([&] { commit(); });
  }

  void remove_partial() const {
    std::error_code ignored;
    if (world_.rank() == 0) fs::remove(partial_, ignored);
  }

  std::int64_t bytes() const {
    std::int64_t total = 0;
    for (const auto& tensor : tensors_)
      total += checkpoint::elements(tensor.layout.shape) * static_cast<std::int64_t>(sizeof(float));
    return total;
  }

 private:
  void agree(const std::function<void()>& stage) { checkpoint::agree(world_, stage); }

  void describe_tensors() {
    for (const auto& tensor : tensors_) {
      const std::string problem = checkpoint::layout_problem(tensor.layout);
      check(problem.empty(), tensor.layout.path + ": " + problem);
      check(described_.empty() || described_.back().layout.path != tensor.layout.path,
            tensor.layout.path + " is given twice");
      for (const auto& box : tensor.boxes) check_box(tensor.layout, box);
      described_.push_back({tensor.layout, {}});
    }
  }

  static void check_box(const TensorLayout& layout, const TensorBox<const float>& box) {
    checkpoint::box_index(layout, box.outer_part, box.split_part);
    check(static_cast<std::int64_t>(box.values.size()) == layout.box_size(box.outer_part, box.split_part),
          fmt::format("box ({}, {}) of {} has {} elements", box.outer_part, box.split_part, layout.path,
                      box.values.size()));
  }

  /// The exchange of digests relies on equal tables.
  void check_same_description() {
    const Digest mine = checkpoint::root_digest(record_, described_);
    std::vector<unsigned char> all(mine.size() * static_cast<std::size_t>(world_.size()));
    world_.all_gather(std::span<const unsigned char>(mine), std::span(all));
    for (int rank = 1; rank < world_.size(); ++rank)
      check(std::equal(all.begin(), all.begin() + mine.size(),
                       all.begin() + rank * static_cast<std::ptrdiff_t>(mine.size())),
            fmt::format("ranks 0 and {} describe different checkpoints", rank));
  }

  /// Digests are taken from memory before anything is written. Each box has one owner, so that a sum over the
  /// ranks brings every digest to every rank.
  void share_digests() {
    std::vector<std::int64_t> table;  // per box: owners, then the digest's bytes in words of 32 bits
    for (const auto& tensor : tensors_) {
      const std::size_t first = table.size();
      table.resize(first + kWordsPerBox * static_cast<std::size_t>(checkpoint::box_count(tensor.layout)));
      for (const auto& box : tensor.boxes) {
        const int index = checkpoint::box_index(tensor.layout, box.outer_part, box.split_part);
        add_digest(checkpoint::digest_of(box.values),
                   &table[first + kWordsPerBox * static_cast<std::size_t>(index)]);
      }
    }
    world_.all_reduce(std::span(table));
    take_digests(table);
  }

  static constexpr std::size_t kWordsPerBox = 5;
  using Words = std::array<std::uint32_t, 4>;

  static void add_digest(const Digest& digest, std::int64_t* entry) {
    const auto words = std::bit_cast<Words>(digest);
    ++entry[0];
    for (std::size_t i = 0; i < words.size(); ++i) entry[i + 1] += words[i];
  }

  void take_digests(const std::vector<std::int64_t>& table) {
    const std::int64_t* entry = table.data();
    for (DescribedTensor& tensor : described_)
      for (int box = 0; box < checkpoint::box_count(tensor.layout); ++box, entry += kWordsPerBox) {
        check(entry[0] == 1, fmt::format("{} ranks write box {} of {}", entry[0], box, tensor.layout.path));
        Words words;
        for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(entry[i + 1]);
        tensor.digests.push_back(std::bit_cast<Digest>(words));
      }
  }

  void create_partial() {
    if (world_.rank() == 0) checkpoint::create_skeleton(partial_, record_, described_);
  }

  void check_partial_is_visible() {
    try {
      checkpoint::Descriptor(partial_, O_RDWR).close();
    } catch (const std::exception& error) {
      throw std::runtime_error(
          fmt::format("rank {} does not see the file that rank 0 made ({}); the folder must "
                      "lie on a file system that all hosts share",
                      world_.rank(), error.what()));
    }
  }

  void write_in_parallel() {
    const hdf5::Section section;
    std::optional<Handle> file;
    agree([&] {
      const Handle access = hdf5::parallel_access(world_.native_handle());
      file.emplace(hdf5::open_file(partial_, H5F_ACC_RDWR, access));
    });
    agree([&] { write_and_finish(*file); });
  }

  /// Ranks without MPI are threads of one process, which HDF5 serves one at a time.
  void write_in_turn() {
    agree([&] {
      const hdf5::Section section;
      const Handle access = hdf5::serial_write_access();
      Handle file = hdf5::open_file(partial_, H5F_ACC_RDWR, access);
      write_and_finish(file);
    });
  }

  /// Finishing is collective in parallel: also a rank that could not write takes part.
  void write_and_finish(Handle& file) {
    const std::string writing = failure_of([&] { write_own_boxes(file); });
    const std::string finishing = failure_of([&] { hdf5::finish(file); });
    const std::string failure = writing.empty() ? finishing : writing;
    if (!failure.empty()) throw std::runtime_error(failure + checkpoint::free_space_note(partial_));
    checkpoint::synchronize(partial_);
  }

  void write_own_boxes(hid_t file) {
    for (const auto& tensor : tensors_) {
      if (tensor.boxes.empty()) continue;
      Handle dataset = hdf5::open_dataset(file, tensor.layout.path);
      for (const auto& box : tensor.boxes)
        checkpoint::write_box(dataset, tensor.layout, box.outer_part, box.split_part, box.values);
      dataset.close("cannot close " + tensor.layout.path);
    }
  }

  void read_back() {
    checkpoint::with_checkpoint(partial_, [&](hid_t file, const checkpoint::Structure& structure) {
      check(structure.root == checkpoint::root_digest(record_, described_), "another root digest came back");
      std::vector<float> values;
      for (std::size_t i = 0; i < tensors_.size(); ++i) {
        const Handle dataset = hdf5::open_dataset(file, tensors_[i].layout.path);
        for (const auto& box : tensors_[i].boxes) {
          values.resize(box.values.size());
          read_checked_box(dataset, described_[i], box.outer_part, box.split_part, values);
        }
      }
    });
  }

  void commit() {
    if (world_.rank() != 0) return;
    checkpoint::synchronize(partial_);
    std::error_code error;
    fs::rename(partial_, file_, error);
    if (error) throw std::runtime_error("cannot rename the finished file: " + error.message());
    checkpoint::synchronize(file_.has_parent_path() ? file_.parent_path() : fs::path("."));
  }

  const fs::path file_;
  fs::path partial_;
  const CheckpointRecord& record_;
  Tensors tensors_;  ///< ascending order of path
  Communicator& world_;
  std::vector<DescribedTensor> described_;  ///< as tensors_
};

}  // namespace

CheckpointCost write_checkpoint(const fs::path& file, const CheckpointRecord& record, const Tensors& tensors,
                                Communicator& world) {
  const auto start = std::chrono::steady_clock::now();
  CheckpointWriter writer(file, record, tensors, world);
  try {
    writer.write();
  } catch (const PeerError&) {
    writer.remove_partial();
    throw;
  } catch (const std::exception& error) {
    writer.remove_partial();
    throw CheckpointWriteError(fmt::format("checkpoint {} was not written: {}", file.string(), error.what()));
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return {elapsed.count(), writer.bytes()};
}

}  // namespace lamina
