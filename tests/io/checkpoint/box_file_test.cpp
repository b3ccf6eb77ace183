#include "io/checkpoint/box_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "io/checkpoint/layout.h"
#include "tests/io/temporary_folder.h"

namespace lamina::checkpoint {
namespace {

constexpr std::int64_t kPlace = 1003;  // not a multiple of anything

/// A tensor, the file's bytes it belongs to, and some of its boxes with memory.
class Boxes {
 public:
  Boxes(TensorLayout layout, const std::function<bool(int box)>& has) : layout_(std::move(layout)) {
    for (int o = 0; o < layout_.outer_parts; ++o)
      for (int s = 0; s < layout_.split_parts; ++s)
        if (has(box_index(layout_, o, s))) boxes_.push_back({o, s, numbers(o, s)});
  }

  template <class T>
  CheckpointTensor<T> tensor() {
    CheckpointTensor<T> tensor{layout_, {}};
    for (Box& box : boxes_) tensor.boxes.push_back({box.outer_part, box.split_part, box.values});
    return tensor;
  }
  void clear() {
    for (Box& box : boxes_) box.values.assign(box.values.size(), -1);
  }
  bool is_right() const {
    for (const Box& box : boxes_)
      if (box.values != numbers(box.outer_part, box.split_part)) return false;
    return true;
  }
  std::vector<Digest> digests() const {
    std::vector<Digest> all;
    for (const Box& box : boxes_) all.push_back(digest_of(std::span<const float>(box.values)));
    return all;
  }

 private:
  struct Box {
    int outer_part, split_part;
    std::vector<float> values;
  };

  /// Each number is its index in the tensor.
  std::vector<float> numbers(int outer_part, int split_part) const {
    const Region region = box_region(layout_, outer_part, split_part);
    std::vector<float> values;
    for (std::int64_t o = 0; o < region.outer.count; ++o)
      for (std::int64_t s = 0; s < region.split.count; ++s)
        for (std::int64_t i = 0; i < layout_.inner; ++i)
          values.push_back(static_cast<float>(
              ((region.outer.first + o) * layout_.split + region.split.first + s) * layout_.inner + i));
    return values;
  }

  TensorLayout layout_;
  std::vector<Box> boxes_;
};

TensorLayout layout(std::int64_t outer, std::int64_t split, std::int64_t inner, int outer_parts,
                    int split_parts) {
  return {"/x", {outer, split * inner}, outer, split, inner, outer_parts, split_parts};
}

/// Small, odd, empty parts, runs larger than every buffer, runs that just fit.
const std::vector<TensorLayout> kLayouts = {layout(1, 1, 1, 1, 1),        layout(7, 9, 1, 1, 4),
                                            layout(9, 13, 5, 3, 4),       layout(3, 5, 1, 4, 8),
                                            layout(700, 64, 1, 1, 8),     layout(4, 64, 1024, 1, 8),
                                            layout(3, 8, 16384, 2, 8),    layout(1, 3, 2'500'000, 1, 2),
                                            layout(2, 1024, 128, 1, 128), layout(40, 4096, 16, 2, 64)};

class Shares : public ::testing::TestWithParam<int> {};

TEST_P(Shares, EveryShareOfBoxesComesBack) {
  const TemporaryFolder folder;
  const int ranks = GetParam();
  for (const TensorLayout& layout : kLayouts) {
    const auto bytes = elements(layout.shape) * static_cast<std::int64_t>(sizeof(float));
    const Descriptor file(folder / "a", O_RDWR | O_CREAT | O_TRUNC);
    resize(file, kPlace + bytes);
    const auto share = [&](int rank, bool runs) {
      const int boxes = box_count(layout);
      return Boxes(layout, [=](int box) { return (runs ? box * ranks / boxes : box % ranks) == rank; });
    };

    for (int rank = 0; rank < ranks; ++rank)
      write_boxes(file, kPlace, share(rank, true).tensor<const float>());

    std::vector<float> whole(static_cast<std::size_t>(elements(layout.shape)));
    read_at(file, kPlace, std::as_writable_bytes(std::span(whole)));
    for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(whole[i], static_cast<float>(i));
    for (const bool runs : {true, false})
      for (int rank = 0; rank < ranks; ++rank) {
        Boxes boxes = share(rank, runs);
        boxes.clear();
        read_boxes(file, kPlace, boxes.tensor<float>());
        EXPECT_TRUE(boxes.is_right());
        EXPECT_EQ(digests_in_file(file, kPlace, boxes.tensor<const float>()), boxes.digests());
      }
  }
}

INSTANTIATE_TEST_SUITE_P(BoxFile, Shares, ::testing::Values(1, 2, 3, 5));

TEST(BoxFile, AFileThatEndsTooEarlyIsAnError) {
  const TemporaryFolder folder;
  Boxes boxes(layout(4, 8, 4, 1, 8), [](int) { return true; });
  const Descriptor file(folder / "a", O_RDWR | O_CREAT);
  write_boxes(file, 0, boxes.tensor<const float>());
  resize(file, 4 * 8 * 4 * 4 - 1);

  EXPECT_THROW(read_boxes(file, 0, boxes.tensor<float>()), std::runtime_error);
  EXPECT_THROW(digests_in_file(file, 0, boxes.tensor<const float>()), std::runtime_error);
}

}  // namespace
}  // namespace lamina::checkpoint
