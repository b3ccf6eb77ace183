#include "io/checkpoint/box_file.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "io/checkpoint/digest_stream.h"
#include "io/checkpoint/layout.h"

namespace lamina::checkpoint {
namespace {

constexpr std::size_t kFloat = sizeof(float);
constexpr std::size_t kWindow = 256u << 10;    // fits the cache of a core
constexpr std::size_t kDirect = 64u << 10;     // bytes from which a run travels without a copy
constexpr std::size_t kWriteback = 16u << 20;  // bytes after which the disk is told to begin
constexpr std::int64_t kMaxWaste = 8;  // bytes read for one that is wanted, rather than a call for each run

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

/// Bytes of a box that lie side by side in the file.
struct Run {
  std::size_t box;     ///< index in the tensor's boxes
  std::size_t first;   ///< byte of the box where it begins
  std::int64_t place;  ///< in the file
  std::size_t bytes;
};

/// Indices of the boxes in the order in which they lie in the file.
template <class T>
std::vector<std::size_t> in_file_order(const std::vector<TensorBox<T>>& boxes) {
  std::vector<std::size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {},
                    [&](std::size_t i) { return std::pair(boxes[i].outer_part, boxes[i].split_part); });
  return order;
}

/// Calls visit(run) for every run of every box, by ascending place.
template <class T, class Visit>
void for_each_run(const CheckpointTensor<T>& tensor, std::int64_t place, const Visit& visit) {
  const TensorLayout& layout = tensor.layout;
  const auto order = in_file_order(tensor.boxes);
  for (auto begin = order.begin(), end = begin; begin != order.end(); begin = end) {
    const int part = tensor.boxes[*begin].outer_part;
    end = std::find_if(begin, order.end(), [&](std::size_t i) { return tensor.boxes[i].outer_part != part; });
    const std::int64_t rows = box_region(layout, part, 0).outer.count;
    for (std::int64_t row = 0; row < rows; ++row)
      for (auto box = begin; box != end; ++box) {
        const Region region = box_region(layout, part, tensor.boxes[*box].split_part);
        const std::int64_t count = region.split.count * layout.inner;
        const std::int64_t index =
            ((region.outer.first + row) * layout.split + region.split.first) * layout.inner;
        if (count > 0)
          visit(Run{*box, size(row * count) * kFloat, place + index * static_cast<std::int64_t>(kFloat),
                    size(count) * kFloat});
      }
  }
}

/// Brings runs of ascending place to the file with few calls, and the disk to begin early.
class GatheringWriter {
 public:
  explicit GatheringWriter(const Descriptor& file) : file_(file) {}

  void put(std::int64_t place, std::span<const std::byte> bytes) {
    const bool goes_on = place == place_ + static_cast<std::int64_t>(gathered_.size());
    if (!goes_on || gathered_.size() + bytes.size() > kWindow) flush();
    if (bytes.size() >= kDirect) return write_large(place, bytes);
    if (gathered_.empty()) place_ = place;
    gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
  }

  void flush() {
    write(place_, gathered_);
    gathered_.clear();
  }

 private:
  void write_large(std::int64_t place, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const std::size_t count = std::min(bytes.size(), kWriteback);
      write(place, bytes.first(count));
      bytes = bytes.subspan(count);
      place += static_cast<std::int64_t>(count);
    }
  }

  void write(std::int64_t place, std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    write_at(file_, place, bytes);
    if (place != written_.first + written_.count) written_ = {place, 0};
    written_.count += static_cast<std::int64_t>(bytes.size());
    if (written_.count < static_cast<std::int64_t>(kWriteback)) return;
    begin_writeback(file_, written_.first, written_.count);
    written_ = {written_.first + written_.count, 0};
  }

  const Descriptor& file_;
  std::int64_t place_ = 0;  ///< of what is gathered
  std::vector<std::byte> gathered_;
  Range written_;  ///< in one run, and the disk not yet told
};

/// Shows runs of ascending place through a window that slides over the file.
class WindowedReader {
 public:
  template <class T>
  WindowedReader(const Descriptor& file, std::int64_t place, const CheckpointTensor<T>& tensor)
      : file_(file),
        end_(place + elements(tensor.layout.shape) * static_cast<std::int64_t>(kFloat)),
        slides_(is_dense(tensor.layout)) {}

  /// At most kWindow bytes.
  std::span<const std::byte> view(std::int64_t place, std::size_t bytes) {
    if (place < place_ ||
        place + static_cast<std::int64_t>(bytes) > place_ + static_cast<std::int64_t>(window_.size()))
      load(place, slides_ ? std::min(kWindow, size(end_ - place)) : bytes);
    return std::span(window_).subspan(size(place - place_), bytes);
  }

 private:
  static bool is_dense(const TensorLayout& layout) {
    return box_region(layout, 0, 0).split.count * kMaxWaste >= layout.split;
  }

  void load(std::int64_t place, std::size_t bytes) {
    window_.resize(bytes);
    place_ = place;
    read_at(file_, place, window_);
  }

  const Descriptor& file_;
  const std::int64_t end_;
  const bool slides_;
  std::int64_t place_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace

void write_boxes(const Descriptor& file, std::int64_t place, const CheckpointTensor<const float>& tensor) {
  GatheringWriter writer(file);
  for_each_run(tensor, place, [&](const Run& run) {
    writer.put(run.place, std::as_bytes(tensor.boxes[run.box].values).subspan(run.first, run.bytes));
  });
  writer.flush();
}

void read_boxes(const Descriptor& file, std::int64_t place, const CheckpointTensor<float>& tensor) {
  WindowedReader reader(file, place, tensor);
  for_each_run(tensor, place, [&](const Run& run) {
    const auto out = std::as_writable_bytes(tensor.boxes[run.box].values).subspan(run.first, run.bytes);
    if (run.bytes >= kDirect)
      read_at(file, run.place, out);
    else
      std::ranges::copy(reader.view(run.place, run.bytes), out.begin());
  });
}

std::vector<Digest> digests_in_file(const Descriptor& file, std::int64_t place,
                                    const CheckpointTensor<const float>& tensor) {
  WindowedReader reader(file, place, tensor);
  std::vector<DigestStream> streams(tensor.boxes.size());
  for_each_run(tensor, place, [&](const Run& run) {
    for (std::size_t done = 0; done < run.bytes; done += kWindow)
      streams[run.box].add(
          reader.view(run.place + static_cast<std::int64_t>(done), std::min(kWindow, run.bytes - done)));
  });
  std::vector<Digest> digests;
  for (const DigestStream& stream : streams) digests.push_back(stream.digest());
  return digests;
}

}  // namespace lamina::checkpoint
