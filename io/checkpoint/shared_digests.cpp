#include "io/checkpoint/shared_digests.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "io/checkpoint/layout.h"
#include "runtime/error.h"

namespace lamina::checkpoint {
namespace {

constexpr std::size_t kWordsPerBox = 5;  // owners, then the digest's bytes in words of 32 bits
using Words = std::array<std::uint32_t, 4>;

void add_digest(const Digest& digest, std::int64_t* entry) {
  const auto words = std::bit_cast<Words>(digest);
  ++entry[0];
  for (std::size_t i = 0; i < words.size(); ++i) entry[i + 1] += words[i];
}

Digest digest_in(const std::int64_t* entry) {
  Words words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(entry[i + 1]);
  return std::bit_cast<Digest>(words);
}

std::vector<std::int64_t> table_of(const std::vector<CheckpointTensor<const float>>& tensors,
                                   const std::vector<std::vector<Digest>>& own) {
  std::vector<std::int64_t> table;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::size_t first = table.size();
    const TensorLayout& layout = tensors[t].layout;
    table.resize(first + kWordsPerBox * static_cast<std::size_t>(box_count(layout)));
    for (std::size_t b = 0; b < tensors[t].boxes.size(); ++b) {
      const auto& box = tensors[t].boxes[b];
      const auto index = static_cast<std::size_t>(box_index(layout, box.outer_part, box.split_part));
      add_digest(own[t][b], &table[first + kWordsPerBox * index]);
    }
  }
  return table;
}

}  // namespace

void require_same_description(const CheckpointRecord& record, const std::vector<DescribedTensor>& described,
                              Communicator& world) {
  const Digest mine = root_digest(record, described);
  std::vector<unsigned char> all(mine.size() * static_cast<std::size_t>(world.size()));
  world.all_gather(std::span<const unsigned char>(mine), std::span(all));
  for (int rank = 1; rank < world.size(); ++rank)
    check(std::equal(all.begin(), all.begin() + mine.size(),
                     all.begin() + rank * static_cast<std::ptrdiff_t>(mine.size())),
          fmt::format("ranks 0 and {} describe different checkpoints", rank));
}

void share_digests(const std::vector<CheckpointTensor<const float>>& tensors,
                   const std::vector<std::vector<Digest>>& own, std::vector<DescribedTensor>& described,
                   Communicator& world) {
  std::vector<std::int64_t> table = table_of(tensors, own);
  world.all_reduce(std::span(table));  // each box has one owner, so the sum brings every digest to every rank
  const std::int64_t* entry = table.data();
  for (DescribedTensor& tensor : described)
    for (int box = 0; box < box_count(tensor.layout); ++box, entry += kWordsPerBox) {
      check(entry[0] == 1, fmt::format("{} ranks write box {} of {}", entry[0], box, tensor.layout.path));
      tensor.digests.push_back(digest_in(entry));
    }
}

}  // namespace lamina::checkpoint
