// A small model's checkpoint for tests: every kind of tensor, numbers that follow from their global index,
// boxes spread over ranks in different ways.
#pragma once

#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "io/checkpoint.h"

namespace lamina {

inline constexpr int kSampleBlocks = 4, kSampleGroups = 4;

inline TensorLayout sample_layout(std::string path, std::vector<std::int64_t> shape,
                                  std::vector<std::int64_t> view, int outer_parts = 1) {
  return {std::move(path), std::move(shape), view[0], view[1], view[2], outer_parts, kSampleBlocks};
}

/// V = 9, E = 8, H = 8, batch 8: the last block of the output layer is empty.
inline std::vector<TensorLayout> sample_layouts() {
  std::vector<TensorLayout> layouts;
  for (const std::string where : {"/parameters/", "/optimizer/first_moment/", "/optimizer/second_moment/"}) {
    layouts.push_back(sample_layout(where + "embedding/table", {9, 8}, {9, 8, 1}));
    layouts.push_back(sample_layout(where + "lstm0/W_x", {32, 8}, {4, 8, 8}));
    layouts.push_back(sample_layout(where + "lstm0/W_h", {32, 8}, {4, 8, 8}));
    layouts.push_back(sample_layout(where + "lstm0/gain_x", {32}, {4, 8, 1}));
    layouts.push_back(sample_layout(where + "lstm0/gain_h", {32}, {4, 8, 1}));
    layouts.push_back(sample_layout(where + "lstm0/bias", {32}, {4, 8, 1}));
    layouts.push_back(sample_layout(where + "lstm0/gain_c", {8}, {1, 8, 1}));
    layouts.push_back(sample_layout(where + "lstm0/bias_c", {8}, {1, 8, 1}));
    layouts.push_back(sample_layout(where + "output/W", {9, 8}, {1, 9, 8}));
    layouts.push_back(sample_layout(where + "output/bias", {9}, {1, 9, 1}));
  }
  for (const std::string name : {"h", "c"})
    layouts.push_back(sample_layout("/state/lstm0/" + name, {8, 8}, {8, 8, 1}, kSampleGroups));
  return layouts;
}

inline CheckpointRecord sample_record() {
  CheckpointRecord record;
  record.step = 1200;
  record.seed = 0xFEDCBA9876543210u;
  record.lane_groups = kSampleGroups;
  record.unit_blocks = kSampleBlocks;
  record.batch = 8;
  record.epoch = 3;
  record.chunk = 17;
  record.validation_loss = 1.25;
  record.configuration = "hidden = 8\ndata = \"na\xC3\xAFve.txt\"\n";
  record.vocabulary = {U'\n', U' ', U'a', U'b', U'c', U'd', U'\u00e9', U'\u20ac', U'\U0001F600'};
  record.build = "lamina 0.1.0";
  record.text_digest = "00112233445566778899aabbccddeeff";
  return record;
}

/// Which rank has a box.
using Owner = std::function<int(const TensorLayout&, int outer_part, int split_part)>;

inline Owner all_on(int rank) {
  return [rank](const TensorLayout&, int, int) { return rank; };
}
/// Neighbouring boxes on one rank, as a process grid has them.
inline Owner in_runs(int ranks) {
  return [ranks](const TensorLayout& t, int o, int s) {
    return (o * t.split_parts + s) * ranks / (t.outer_parts * t.split_parts);
  };
}
inline Owner round_robin(int ranks) {
  return [ranks](const TensorLayout& t, int o, int s) { return (o * t.split_parts + s) % ranks; };
}

/// The boxes that one rank has, with their memory.
class SampleBoxes {
 public:
  SampleBoxes(std::vector<TensorLayout> layouts, const Owner& owner, int rank)
      : layouts_(std::move(layouts)) {
    for (std::size_t t = 0; t < layouts_.size(); ++t)
      for (int o = 0; o < layouts_[t].outer_parts; ++o)
        for (int s = 0; s < layouts_[t].split_parts; ++s)
          if (owner(layouts_[t], o, s) == rank) boxes_.push_back({t, o, s, numbers(t, o, s)});
  }

  std::vector<CheckpointTensor<const float>> to_write() const { return tensors<const float>(boxes_); }
  /// The same boxes, their memory cleared.
  std::vector<CheckpointTensor<float>> to_read() {
    for (Box& box : boxes_) box.values.assign(box.values.size(), -1);
    return tensors<float>(boxes_);
  }
  /// Do the boxes hold the numbers they began with?
  bool is_right() const {
    for (const Box& box : boxes_)
      if (box.values != numbers(box.tensor, box.outer_part, box.split_part)) return false;
    return true;
  }
  std::vector<float>& values(std::size_t box) { return boxes_.at(box).values; }

 private:
  struct Box {
    std::size_t tensor;
    int outer_part, split_part;
    std::vector<float> values;
  };

  static std::int64_t bound(std::int64_t extent, int part, int parts) {
    return std::min(extent, (extent + parts - 1) / parts * part);
  }

  std::vector<float> numbers(std::size_t t, int outer_part, int split_part) const {
    const TensorLayout& layout = layouts_[t];
    std::vector<float> values;
    for (std::int64_t o = bound(layout.outer, outer_part, layout.outer_parts);
         o < bound(layout.outer, outer_part + 1, layout.outer_parts); ++o)
      for (std::int64_t s = bound(layout.split, split_part, layout.split_parts);
           s < bound(layout.split, split_part + 1, layout.split_parts); ++s)
        for (std::int64_t i = 0; i < layout.inner; ++i)
          values.push_back(number(t, (o * layout.split + s) * layout.inner + i));
    return values;
  }

  static float number(std::size_t tensor, std::int64_t index) {
    return static_cast<float>(tensor) * 4096.0f + static_cast<float>(index) + 0.25f;
  }

  template <class T, class Boxes>
  std::vector<CheckpointTensor<T>> tensors(Boxes& boxes) const {
    std::vector<CheckpointTensor<T>> all;
    for (const TensorLayout& layout : layouts_) all.push_back({layout, {}});
    for (auto& box : boxes) all[box.tensor].boxes.push_back({box.outer_part, box.split_part, box.values});
    return all;
  }

  std::vector<TensorLayout> layouts_;
  std::vector<Box> boxes_;
};

inline std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The sample checkpoint, written by this rank alone.
inline void write_sample(const std::filesystem::path& file,
                         const CheckpointRecord& record = sample_record()) {
  const SampleBoxes boxes(sample_layouts(), all_on(0), 0);
  const auto self = make_self_communicator();
  write_checkpoint(file, record, boxes.to_write(), *self);
}

}  // namespace lamina
