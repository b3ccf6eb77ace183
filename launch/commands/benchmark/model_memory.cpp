#include "launch/commands/benchmark/model_memory.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "runtime/random.h"

namespace lamina {
namespace {

constexpr int kLayers = 2;
constexpr std::int64_t kVocabulary = 256;

/// W_x and W_h of each layer, 4H x H, three times: the parameter and two moments.
std::int64_t hidden_for(double gigabytes, int unit_blocks) {
  const double weights = kLayers * 2 * 4 * 3 * sizeof(float);
  const double hidden = std::sqrt(gigabytes * (1 << 30) / weights);
  return std::max<std::int64_t>(1, std::llround(hidden / unit_blocks)) * unit_blocks;
}

}  // namespace

ModelMemory::ModelMemory(double gigabytes, const Communicator& world)
    : hidden_(0), unit_blocks_(std::max(8, world.size())) {
  hidden_ = hidden_for(gigabytes, unit_blocks_);
  const std::int64_t H = hidden_;
  for (const std::string where : {"/parameters/", "/optimizer/first_moment/", "/optimizer/second_moment/"}) {
    add(where + "embedding/table", {kVocabulary, H}, kVocabulary, H, 1);
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string lstm = where + "lstm" + std::to_string(layer) + "/";
      for (const char* weight : {"W_x", "W_h"}) add(lstm + weight, {4 * H, H}, 4, H, H);
      for (const char* vector : {"gain_x", "gain_h", "bias"}) add(lstm + vector, {4 * H}, 4, H, 1);
      for (const char* vector : {"gain_c", "bias_c"}) add(lstm + vector, {H}, 1, H, 1);
    }
    add(where + "output/W", {kVocabulary, H}, 1, kVocabulary, H);
    add(where + "output/bias", {kVocabulary}, 1, kVocabulary, 1);
  }
  place_boxes(world);
}

void ModelMemory::add(const std::string& path, std::vector<std::int64_t> shape, std::int64_t outer,
                      std::int64_t split, std::int64_t inner) {
  tensors_.push_back({{path, std::move(shape), outer, split, inner, 1, unit_blocks_}, {}});
}

void ModelMemory::place_boxes(const Communicator& world) {
  const auto is_own = [&](int box) { return box * world.size() / unit_blocks_ == world.rank(); };
  const auto for_each_own = [&](const auto& visit) {
    for (auto& tensor : tensors_)
      for (int box = 0; box < unit_blocks_; ++box)
        if (is_own(box)) visit(tensor, box, static_cast<std::size_t>(tensor.layout.box_size(0, box)));
  };
  std::size_t size = 0;
  for_each_own([&](auto&, int, std::size_t count) { size += count; });
  memory_.resize(size);
  const RandomStream random(1, "benchmark");
  for (std::size_t i = 0; i < size; ++i)
    memory_[i] = random.uniform(static_cast<std::uint64_t>(world.rank()), i);

  std::span<float> rest = memory_;
  for_each_own([&](auto& tensor, int box, std::size_t count) {
    tensor.boxes.push_back({0, box, rest.first(count)});
    rest = rest.subspan(count);
  });
}

}  // namespace lamina
