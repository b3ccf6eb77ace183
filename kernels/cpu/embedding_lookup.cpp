#include "kernels/cpu/embedding_lookup.h"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/parallel.h"
#include "runtime/error.h"
#include "runtime/shape_checks.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

class CpuEmbeddingLookup final : public EmbeddingLookup {
 public:
  CpuEmbeddingLookup(const EmbeddingShape& shape, Communicator& model_axis, int threads)
      : shape_(shape), threads_(threads), gather_(shape.tiling.blocks, model_axis) {
    check(shape.width % shape.tiling.blocks.count == 0, "embedding: the width must divide into blocks");
  }

  void forward(int time_steps, std::span<const float> table, std::span<const std::int32_t> tokens,
               std::span<float> output) override {
    const Span span(SpanKind::pointwise, "embedding forward");
    check_fits(shape_, time_steps, table.size(), tokens);
    check(output.size() == tokens.size() * size(shape_.width), "embedding: output must be [D, T, R, E]");
    const std::size_t rows = tile_rows(time_steps);
    blocked_.resize(groups() * blocks() * rows * width());
    parallel_for(threads_, groups() * blocks(), [&](std::size_t tile) {
      const std::span<const float> columns = table.subspan(tile % blocks() * block_size(), block_size());
      copy_rows(columns, tokens.subspan(tile / blocks() * rows, rows), &blocked_[tile * rows * width()]);
    });
    gather_.run(shape_.tiling.groups.local, static_cast<int>(rows), static_cast<int>(width()), blocked_,
                output.data(), rows * size(shape_.width));
  }

  void backward(int time_steps, std::span<const float> d_output, std::span<const std::int32_t> tokens,
                std::span<float> d_table) override {
    const Span span(SpanKind::pointwise, "embedding backward");
    check_fits(shape_, time_steps, d_table.size(), tokens);
    check(d_output.size() == tokens.size() * blocks() * width(),
          "embedding: d_output must be [D, K, T*R, E/G]");
    sort_by_token(tokens);
    const std::size_t chunks = (size(shape_.vocabulary) + kTokensOfChunk - 1) / kTokensOfChunk;
    parallel_for(threads_, blocks() * chunks, [&](std::size_t item) {
      const std::size_t first = item % chunks * kTokensOfChunk;
      const std::size_t end = std::min(first + kTokensOfChunk, size(shape_.vocabulary));
      add_up(item / chunks, first, end, tile_rows(time_steps), d_output, d_table);
    });
  }

 private:
  static constexpr std::size_t kTokensOfChunk = 64;

  std::size_t groups() const { return size(shape_.tiling.groups.local); }
  std::size_t blocks() const { return size(shape_.tiling.blocks.local); }
  std::size_t width() const { return size(shape_.width / shape_.tiling.blocks.count); }
  std::size_t block_size() const { return size(shape_.vocabulary) * width(); }
  std::size_t tile_rows(int time_steps) const { return size(time_steps) * size(shape_.tiling.rows); }

  void copy_rows(std::span<const float> columns, std::span<const std::int32_t> tokens, float* out) const {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      std::copy_n(&columns[size(tokens[i]) * width()], width(), out + i * width());
  }

  // A counting sort: the places of token v are places_[starts_[v] … starts_[v + 1]), in ascending order.
  void sort_by_token(std::span<const std::int32_t> tokens) {
    starts_.assign(size(shape_.vocabulary) + 1, 0);
    for (const std::int32_t v : tokens) ++starts_[size(v) + 1];
    for (std::size_t v = 1; v < starts_.size(); ++v) starts_[v] += starts_[v - 1];
    std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
    places_.resize(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) places_[next[size(tokens[i])]++] = i;
  }

  // The gradient of the rows [first, end) of block k: per group in order of place, groups in the tree.
  void add_up(std::size_t k, std::size_t first, std::size_t end, std::size_t rows,
              std::span<const float> d_output, std::span<float> d_table) const {
    ArrayTree tree;
    for (std::size_t v = first; v < end; ++v) {
      const std::span<float> row = d_table.subspan(k * block_size() + v * width(), width());
      std::size_t next = starts_[v];
      if (next == starts_[v + 1]) {
        std::ranges::fill(row, 0.0f);
        continue;
      }
      tree.sum(groups(), row, [&](std::size_t d, std::span<float> sum) {
        std::ranges::fill(sum, 0.0f);
        for (; next < starts_[v + 1] && places_[next] < (d + 1) * rows; ++next) {
          const std::size_t place = d * blocks() * rows + k * rows + places_[next] - d * rows;
          for (std::size_t j = 0; j < width(); ++j) sum[j] += d_output[place * width() + j];
        }
      });
    }
  }

  EmbeddingShape shape_;
  int threads_;
  BlockGather gather_;
  std::vector<float> blocked_;  ///< [D, K, T*R, E/G]
  std::vector<std::size_t> starts_, places_;
};

}  // namespace

std::unique_ptr<EmbeddingLookup> make_cpu_embedding_lookup(const EmbeddingShape& shape,
                                                           Communicator& model_axis, int threads) {
  return std::make_unique<CpuEmbeddingLookup>(shape, model_axis, threads);
}

}  // namespace lamina
