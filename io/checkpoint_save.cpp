#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <system_error>

#include "io/checkpoint.h"
#include "io/checkpoint/agreement.h"
#include "io/checkpoint/box_file.h"
#include "io/checkpoint/digest.h"
#include "io/checkpoint/disk.h"
#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/parallel_write.h"
#include "io/checkpoint/shared_digests.h"
#include "io/checkpoint/skeleton.h"
#include "io/checkpoint/structure.h"
#include "io/checkpoint/workers.h"
#include "runtime/error.h"
#include "runtime/fault_point.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using checkpoint::DescribedTensor;
using checkpoint::Descriptor;
using checkpoint::Digest;
using Clock = std::chrono::steady_clock;
using Tensors = std::vector<CheckpointTensor<const float>>;

void check_box(const TensorLayout& layout, const TensorBox<const float>& box) {
  checkpoint::box_index(layout, box.outer_part, box.split_part);
  check(static_cast<std::int64_t>(box.values.size()) == layout.box_size(box.outer_part, box.split_part),
        fmt::format("box ({}, {}) of {} has {} elements", box.outer_part, box.split_part, layout.path,
                    box.values.size()));
}

std::int64_t bytes_of(const Tensors& tensors) {
  std::int64_t total = 0;
  for (const auto& tensor : tensors)
    total += checkpoint::elements(tensor.layout.shape) * static_cast<std::int64_t>(sizeof(float));
  return total;
}

}  // namespace

std::vector<CheckpointTensor<const float>> read_only(const std::vector<CheckpointTensor<float>>& tensors) {
  Tensors all;
  for (const auto& tensor : tensors) {
    auto& boxes = all.emplace_back(CheckpointTensor<const float>{tensor.layout, {}}).boxes;
    for (const auto& box : tensor.boxes) boxes.push_back({box.outer_part, box.split_part, box.values});
  }
  return all;
}

/// The commit protocol. The I/O thread of a stage touches only what no collective of that stage touches, and
/// neither MPI nor a Communicator.
class CheckpointSave::Protocol {
 public:
  Protocol(fs::path file, CheckpointRecord record, Tensors tensors, Communicator& world, CheckpointIo io)
      : file_(std::move(file)),
        partial_(fs::path(file_) += ".partial"),
        record_(std::move(record)),
        tensors_(std::move(tensors)),
        world_(world),
        io_(io) {
    std::ranges::sort(tensors_, {}, [](const auto& tensor) { return tensor.layout.path; });
    hdf5::begin();
    begin([this] {
      describe_tensors();
      take_digests();
    });
  }

  ~Protocol() {
    if (job_.valid()) job_.wait();
    if (stage_ != Stage::complete) remove_partial();
  }

  Protocol(const Protocol&) = delete;
  Protocol& operator=(const Protocol&) = delete;

  bool is_idle() const {
    return !job_.valid() || job_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  bool is_complete() const { return stage_ == Stage::complete; }
  CheckpointCost cost() const { return {seconds_, bytes_of(tensors_)}; }

  void then(std::function<void()> work) {
    check(stage_ == Stage::digests, "work to follow a checkpoint comes too late");
    afterwards_ = std::move(work);
  }
  const std::string& warning() const { return warning_; }

  void advance() {
    check(!is_complete() && !failed_, "a checkpoint that has ended cannot advance");
    try {
      end_stage();
      begin_next_stage();
    } catch (const PeerError&) {
      failed_ = true;
      throw;
    } catch (const std::exception& error) {
      failed_ = true;
      remove_partial();
      world_.barrier();  // it is gone when the first rank hears of the failure
      throw CheckpointWriteError(
          fmt::format("checkpoint {} was not written: {}", file_.string(), error.what()));
    }
  }

 private:
  enum class Stage { digests, skeleton, write, read_back, commit, afterwards, complete };

  bool is_root() const { return world_.rank() == 0; }

  /// Where no thread can be had, the stage ends at once with that failure.
  void begin(std::function<void()> job) {
    try {
      job_ = std::async(std::launch::async, std::move(job));
    } catch (const std::system_error&) {
      std::promise<void> failed;
      failed.set_exception(std::current_exception());
      job_ = failed.get_future();
    }
  }

  /// Waits for this rank's work; then all ranks go on, or none.
  void end_stage() {
    wait_for_disk();
    checkpoint::agree(world_, [&] {
      if (job_.valid()) job_.get();
    });
  }

  /// A call of the system that hangs cannot be called off, nor the thread that is in it: the job ends here,
  /// a little before the other ranks find that this one is late.
  void wait_for_disk() const {
    const auto limit = world_.deadline() * 9 / 10;
    if (!job_.valid() || limit.count() == 0) return;
    if (job_.wait_for(limit) == std::future_status::ready) return;
    MpiSession::abort(ExitCode::peer_lost, world_.rank(),
                      fmt::format("the disk of {} has not answered for {:.3g} s; see --checkpoint-timeout",
                                  partial_.string(), std::chrono::duration<double>(limit).count()));
  }

  void begin_next_stage() {
    switch (stage_) {
      case Stage::digests:
        checkpoint::require_same_description(record_, described_, world_);
        checkpoint::share_digests(tensors_, own_digests_, described_, world_);
        stage_ = Stage::skeleton;
        if (is_root()) begin([this] { checkpoint::create_skeleton(partial_, record_, described_); });
        break;
      case Stage::skeleton:
        stage_ = Stage::write;
        begin_writing();
        break;
      case Stage::write:
        stage_ = Stage::read_back;
        begin([this] { read_back(); });
        break;
      case Stage::read_back:
        stage_ = Stage::commit;
        if (is_root()) begin([this] { commit(); });
        break;
      case Stage::commit:
        stage_ = Stage::afterwards;
        if (is_root() && afterwards_) begin([this] { do_afterwards(); });
        break;
      default:
        stage_ = Stage::complete;
        seconds_ = std::chrono::duration<double>(Clock::now() - start_).count();
    }
  }

  void describe_tensors() {
    check(io_ == CheckpointIo::posix || world_.native_handle() != nullptr,
          "these ranks have no MPI that could write it");
    for (const auto& tensor : tensors_) {
      const std::string problem = checkpoint::layout_problem(tensor.layout);
      check(problem.empty(), tensor.layout.path + ": " + problem);
      check(described_.empty() || described_.back().layout.path != tensor.layout.path,
            tensor.layout.path + " is given twice");
      for (const auto& box : tensor.boxes) check_box(tensor.layout, box);
      described_.push_back({tensor.layout, {}});
    }
  }

  void take_digests() {
    own_digests_.resize(tensors_.size());
    checkpoint::work_in_parallel(workers_, tensors_.size(), [&](std::size_t i) {
      for (const auto& box : tensors_[i].boxes) own_digests_[i].push_back(checkpoint::digest_of(box.values));
    });
  }

  void begin_writing() {
    share_places();
    if (io_ == CheckpointIo::posix) return begin([this] { write(); });
    checkpoint::agree(world_, [&] { open_partial(O_RDWR)->close(); });
    checkpoint::write_in_parallel(partial_, tensors_, world_);
  }

  void share_places() {
    std::vector<std::int64_t> places;
    for (const DescribedTensor& tensor : described_) places.push_back(tensor.place);
    world_.broadcast(std::span(places), 0);
    for (std::size_t i = 0; i < places.size(); ++i) described_[i].place = places[i];
  }

  std::unique_ptr<Descriptor> open_partial(int flags) const {
    if (is_root() || fs::exists(partial_)) return std::make_unique<Descriptor>(partial_, flags);
    throw std::runtime_error(
        fmt::format("rank {} does not see the file that rank 0 made; the folder must lie on a file system "
                    "that all hosts share",
                    world_.rank()));
  }

  void write() {
    std::string at = "its numbers";
    try {
      const auto file = open_partial(O_WRONLY);
      for (std::size_t i = 0; i < tensors_.size(); ++i) {
        fault_point(FaultPoint::checkpoint_write);
        at = tensors_[i].layout.path;
        checkpoint::write_boxes(*file, described_[i].place, tensors_[i]);
      }
      at = "its end";
      checkpoint::synchronize(*file);
      file->close();
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(fmt::format("rank {}, {}: {}{}", world_.rank(), at, error.what(),
                                           checkpoint::free_space_note(partial_)));
    }
  }

  /// The file is opened anew: a network file system shows then what the others wrote.
  void read_back() {
    const auto file = open_partial(O_RDONLY);
    checkpoint::work_in_parallel(workers_, tensors_.size(), [&](std::size_t i) {
      if (checkpoint::digests_in_file(*file, described_[i].place, tensors_[i]) != own_digests_[i])
        throw std::runtime_error(fmt::format("read back by rank {}, {} does not match its digest",
                                             world_.rank(), tensors_[i].layout.path));
    });
    if (!is_root()) return;
    checkpoint::with_checkpoint(partial_, [&](hid_t, const checkpoint::Structure& structure) {
      check(structure.root == checkpoint::root_digest(record_, described_), "another root digest came back");
      for (const DescribedTensor& tensor : described_)
        check(structure.find(tensor.layout.path)->place == tensor.place,
              tensor.layout.path + " lies at another place");
    });
  }

  void commit() {
    checkpoint::synchronize(partial_);
    fault_point(FaultPoint::before_rename);
    checkpoint::rename(partial_, file_);
    fault_point(FaultPoint::before_folder_sync);
    checkpoint::synchronize(file_.has_parent_path() ? file_.parent_path() : fs::path("."));
  }

  void do_afterwards() {
    try {
      afterwards_();
    } catch (const std::exception& error) {
      warning_ = error.what();
    }
  }

  void remove_partial() const {
    std::error_code ignored;
    if (is_root()) fs::remove(partial_, ignored);
  }

  const fs::path file_, partial_;
  const CheckpointRecord record_;
  Tensors tensors_;  ///< ascending order of path
  Communicator& world_;
  const CheckpointIo io_;
  const int workers_ = checkpoint::workers_of_rank(world_.size());
  const Clock::time_point start_ = Clock::now();

  Stage stage_ = Stage::digests;
  bool failed_ = false;
  double seconds_ = 0;
  std::vector<DescribedTensor> described_;        ///< as tensors_
  std::vector<std::vector<Digest>> own_digests_;  ///< of tensors_[i].boxes, taken before anything is written
  std::function<void()> afterwards_;
  std::string warning_;
  std::future<void> job_;  ///< of the I/O thread, for the present stage
};

CheckpointSave::CheckpointSave(fs::path file, CheckpointRecord record, Tensors tensors, Communicator& world,
                               CheckpointIo io)
    : protocol_(
          std::make_unique<Protocol>(std::move(file), std::move(record), std::move(tensors), world, io)) {}

CheckpointSave::CheckpointSave(CheckpointSave&&) noexcept = default;
CheckpointSave& CheckpointSave::operator=(CheckpointSave&&) noexcept = default;
CheckpointSave::~CheckpointSave() = default;

bool CheckpointSave::is_idle() const { return protocol_->is_idle(); }
bool CheckpointSave::is_complete() const { return protocol_->is_complete(); }
void CheckpointSave::advance() { protocol_->advance(); }
void CheckpointSave::then(std::function<void()> work) { protocol_->then(std::move(work)); }
const std::string& CheckpointSave::warning() const { return protocol_->warning(); }
CheckpointCost CheckpointSave::cost() const { return protocol_->cost(); }

void CheckpointSave::finish() {
  while (!is_complete()) advance();
}

CheckpointCost write_checkpoint(const fs::path& file, const CheckpointRecord& record, const Tensors& tensors,
                                Communicator& world, CheckpointIo io) {
  CheckpointSave save(file, record, tensors, world, io);
  save.finish();
  return save.cost();
}

}  // namespace lamina
