// The gradient of a table's row is a sum over the places of its token. The host sorts the places by token, so
// that one thread adds up an element in order, without atomics.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/embedding_lookup.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/tree.cuh"
#include "kernels/cuda/upload.h"
#include "runtime/error.h"
#include "runtime/shape_checks.h"
#include "runtime/trace.h"

namespace lamina::cuda {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

struct TableSizes {
  std::size_t groups, blocks, rows, width;  ///< activations: D, K, T*R, E/G
  std::size_t vocabulary;
};

/// Where an activation of a block lies, in elements.
struct Strides {
  std::size_t group, block, row;
};

__global__ void look_up(TableSizes sizes, const float* table, const std::int32_t* tokens, Strides strides,
                        float* out) {
  for (std::size_t item = first_row(); item < sizes.groups * sizes.rows * sizes.blocks;
       item += row_stride()) {
    const std::size_t k = item % sizes.blocks, place = item / sizes.blocks;
    const std::size_t d = place / sizes.rows, row = place % sizes.rows;
    const float* from =
        table + (k * sizes.vocabulary + static_cast<std::size_t>(tokens[place])) * sizes.width;
    float* to = out + d * strides.group + k * strides.block + row * strides.row;
    for (std::size_t j = threadIdx.x; j < sizes.width; j += kWarp) to[j] = from[j];
  }
}

/// The tokens that occur, once each, and the places [D, T, R] of token i in ascending order:
/// places[starts[i]] … places[starts[i + 1] - 1].
struct SortedPlaces {
  std::size_t tokens_that_occur;
  const std::int32_t *tokens, *starts, *places;
};

__global__ void add_up(TableSizes sizes, SortedPlaces sorted, const float* d_output, float* d_table) {
  const std::size_t items = sorted.tokens_that_occur * sizes.blocks;
  for (std::size_t item = first_row(); item < items; item += row_stride()) {
    const std::size_t k = item % sizes.blocks, i = item / sizes.blocks;
    const auto token = static_cast<std::size_t>(sorted.tokens[i]);
    float* row = d_table + (k * sizes.vocabulary + token) * sizes.width;
    for (std::size_t j = threadIdx.x; j < sizes.width; j += kWarp) {
      std::int32_t next = sorted.starts[i];
      row[j] = tree_sum(static_cast<int>(sizes.groups), [&](int group) {
        const std::size_t d = static_cast<std::size_t>(group), first = d * sizes.rows;
        const float* of_group = d_output + (d * sizes.blocks + k) * sizes.rows * sizes.width + j;
        float sum = 0;
        for (; next < sorted.starts[i + 1]; ++next) {
          const std::size_t place = static_cast<std::size_t>(sorted.places[next]) - first;
          if (place >= sizes.rows) break;  // of the next group
          sum += of_group[place * sizes.width];
        }
        return sum;
      });
    }
  }
}

class CudaEmbeddingLookup final : public EmbeddingLookup {
 public:
  CudaEmbeddingLookup(Device& device, const EmbeddingShape& shape, Exchange& model_axis)
      : device_(device),
        shape_(shape),
        gather_(device, shape.tiling.blocks, model_axis, max_places() * blocks() * width()),
        tokens_(device, max_places()),
        sorted_(device, 3 * max_places() + 1),
        next_(size(shape.vocabulary)) {
    check(shape.width % shape.tiling.blocks.count == 0, "embedding: the width must divide into blocks");
    check(max_places() < size(std::numeric_limits<std::int32_t>::max()) / 3, "embedding: too many places");
    if (model_axis.size() > 1) blocked_ = device.allocate<float>(max_places() * blocks() * width());
  }

  void forward(int time_steps, std::span<const float> table, std::span<const std::int32_t> tokens,
               std::span<float> output) override {
    const Span span(SpanKind::pointwise, "embedding forward");
    check_fits(shape_, time_steps, table.size(), tokens);
    check(output.size() == tokens.size() * size(shape_.width), "embedding: output must be [D, T, R, E]");
    const std::size_t rows = rows_of_group(time_steps), full = size(shape_.width);
    const bool is_whole = blocked_.size() == 0;  // else blocks of other ranks are missing
    const Strides strides = is_whole ? Strides{rows * full, width(), full}
                                     : Strides{blocks() * rows * width(), rows * width(), width()};
    launch(device_, look_up, for_rows(tokens.size() * blocks()), sizes(time_steps), table.data(),
           tokens_.send(tokens), strides, is_whole ? output.data() : blocked_.view().data());
    if (is_whole) return;
    gather_.run(shape_.tiling.groups.local, static_cast<int>(rows), static_cast<int>(width()),
                blocked_.view().data(), output.data(), rows * full);
  }

  void backward(int time_steps, std::span<const float> d_output, std::span<const std::int32_t> tokens,
                std::span<float> d_table) override {
    const Span span(SpanKind::pointwise, "embedding backward");
    check_fits(shape_, time_steps, d_table.size(), tokens);
    check(d_output.size() == tokens.size() * blocks() * width(),
          "embedding: d_output must be [D, K, T*R, E/G]");
    device_.clear(d_table.data(), d_table.size_bytes());
    const SortedPlaces sorted = sort_by_token(tokens);
    launch(device_, add_up, for_rows(sorted.tokens_that_occur * blocks()), sizes(time_steps), sorted,
           d_output.data(), d_table.data());
  }

 private:
  std::size_t groups() const { return size(shape_.tiling.groups.local); }
  std::size_t blocks() const { return size(shape_.tiling.blocks.local); }
  std::size_t width() const { return size(shape_.width / shape_.tiling.blocks.count); }
  std::size_t rows_of_group(int time_steps) const { return size(time_steps) * size(shape_.tiling.rows); }
  std::size_t max_places() const { return groups() * rows_of_group(shape_.max_time_steps); }
  TableSizes sizes(int time_steps) const {
    return {groups(), blocks(), rows_of_group(time_steps), width(), size(shape_.vocabulary)};
  }

  // A counting sort; what is uploaded is [tokens that occur], [their starts and the end], [places].
  SortedPlaces sort_by_token(std::span<const std::int32_t> tokens) {
    std::ranges::fill(next_, 0);
    for (const std::int32_t v : tokens) ++next_[size(v)];
    const std::span<std::int32_t> staged = sorted_.stage();
    const auto occurring =
        static_cast<std::size_t>(std::ranges::count_if(next_, [](auto n) { return n > 0; }));
    const std::span<std::int32_t> occur = staged.first(occurring);
    const std::span<std::int32_t> starts = staged.subspan(occurring, occurring + 1);
    const std::span<std::int32_t> places = staged.subspan(2 * occurring + 1, tokens.size());
    std::int32_t start = 0;
    for (std::size_t v = 0, i = 0; v < next_.size(); ++v) {
      if (next_[v] == 0) continue;
      occur[i] = static_cast<std::int32_t>(v);
      starts[i++] = start;
      start += std::exchange(next_[v], start);
    }
    starts.back() = start;
    for (std::size_t place = 0; place < tokens.size(); ++place)
      places[size(next_[size(tokens[place])]++)] = static_cast<std::int32_t>(place);
    const std::int32_t* sent = sorted_.send(2 * occurring + 1 + tokens.size());
    return {occurring, sent, sent + occurring, sent + 2 * occurring + 1};
  }

  Device& device_;
  EmbeddingShape shape_;
  BlockGather gather_;
  Buffer<float> blocked_;  ///< [D, K, T*R, E/G]; empty on a rank that owns all blocks
  Upload<std::int32_t> tokens_, sorted_;
  std::vector<std::int32_t> next_;  ///< [V]: how often a token occurs, then the place of its next place
};

}  // namespace

std::unique_ptr<EmbeddingLookup> make_cuda_embedding_lookup(Device& device, const EmbeddingShape& shape,
                                                            Exchange& model_axis) {
  return std::make_unique<CudaEmbeddingLookup>(device, shape, model_axis);
}

}  // namespace lamina::cuda
