// For a prediction with logits z = W h + b and target y:
//   max = max z,  sum = sum exp(z - max),  loss = ln(sum) + max - z_y,  dz = exp(z - max) / sum - onehot(y).
// `max`, `sum` and z_y come from all class blocks; everything else stays inside a tile (lane group x class
// block), cut into chunks of rows that fit the cache.
#include "kernels/cpu/softmax_output.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cpu/array_tree.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/softmax_rows.h"
#include "runtime/error.h"
#include "runtime/parameter.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }
std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
std::int64_t length(std::size_t n) { return static_cast<std::int64_t>(n); }

/// The classes of one block and their weights, laid out for both directions.
struct ClassBlock {
  std::int32_t first_class;   ///< global
  std::size_t offset, width;  ///< among the classes of this rank
  PackedMatrix W_transposed;  ///< [H, width]
  PackedMatrix W;             ///< [width, H]
};

/// Rows of one lane group's tiles.
struct Chunk {
  std::size_t group, first_row, rows;
};

class CpuSoftmaxOutput final : public SoftmaxOutput {
 public:
  CpuSoftmaxOutput(const SoftmaxShape& shape, Communicator& model_axis, int threads)
      : shape_(shape),
        hidden_(size(shape.inputs)),
        threads_(threads),
        model_axis_(model_axis),
        gather_(shape.tiling.blocks, model_axis),
        input_gradient_(shape.tiling.blocks, model_axis),
        tree_(threads),
        chunk_scratch_(size(threads)) {
    check(shape.classes >= 1, "softmax: at least one class");
    check(shape.inputs % shape.tiling.blocks.count == 0, "softmax: the inputs must divide into blocks");
    const Share& share = shape.tiling.blocks;
    const BlockedShape classes{1, shape.classes, 1, share.count};
    for (int k = share.first; k < share.first + share.local; ++k) {
      const std::int64_t first = classes.bound(k), width = classes.bound(k + 1) - first;
      if (width == 0) break;  // so are the blocks behind it
      blocks_.push_back({static_cast<std::int32_t>(first), classes_, size(width),
                         PackedMatrix(shape.inputs, width), PackedMatrix(width, shape.inputs)});
      classes_ += size(width);
    }
  }

  void set_parameters(std::span<const float> W, std::span<const float> bias) override {
    check(W.size() == classes_ * hidden_ && bias.size() == classes_, "softmax: parameters do not fit");
    bias_.assign(bias.begin(), bias.end());
    parallel_for(threads_, blocks_.size(), [&](std::size_t k) {
      ClassBlock& block = blocks_[k];
      const float* weights = W.data() + block.offset * hidden_;
      block.W_transposed.set(weights, {.row = 1, .column = shape_.inputs});
      block.W.set(weights, {.row = shape_.inputs, .column = 1});
    });
  }

  void forward(int time_steps, std::span<const float> input, std::span<const std::int32_t> targets) override {
    const Span span(SpanKind::pointwise, "softmax forward");
    begin(time_steps, input, targets);
    for_chunks([&](const Chunk& chunk, std::vector<float>&) { compute_logits(chunk); });
    model_axis_.all_reduce(std::span(maxima_), Reduction::max);
    for_chunks([&](const Chunk& chunk, std::vector<float>&) { compute_totals(chunk); });
    model_axis_.all_reduce(std::span(totals_));
  }

  void losses(std::span<double> losses) override {
    check(losses.size() == groups(), "softmax: losses must be [D]");
    for (std::size_t d = 0; d < groups(); ++d) losses[d] = group_loss(d);
  }

  void backward(float scale, std::span<float> d_input, std::span<float> d_W,
                std::span<float> d_bias) override {
    const Span span(SpanKind::pointwise, "softmax backward");
    check(d_W.size() == classes_ * hidden_ && d_bias.size() == classes_, "softmax: gradients do not fit");
    const int width = shape_.inputs / shape_.tiling.blocks.count;
    check(d_input.size() == groups() * local_blocks() * rows_ * size(width),
          "softmax: d_input must be [D, K, T*R, H/G]");
    d_logits_.resize(rows_ * classes_);
    d_bias_of_group_.assign(groups() * classes_, 0.0f);
    input_gradient_.start(shape_.tiling.groups.local, static_cast<int>(rows_), width, d_input);
    tree_.sum(groups(), d_W, [&](std::size_t d, std::span<float> d_W_of_group) {
      for_chunks_of(d, 1, [&](const Chunk& chunk, std::vector<float>& scratch) {
        compute_d_logits(chunk, scale);
        add_d_input(chunk, scratch);
      });
      compute_d_parameters(d, d_W_of_group);
    });
    input_gradient_.finish();
    for (std::size_t v = 0; v < classes_; ++v)
      d_bias[v] = tree_sum(groups(), [&](std::size_t d) { return d_bias_of_group_[d * classes_ + v]; });
  }

  void logits(int t, std::span<float> out) override {
    const std::size_t lanes = size(shape_.tiling.local_lanes()), rows = size(shape_.tiling.rows);
    const std::size_t all = size(shape_.classes);
    check(t >= 0 && size(t) < rows_ / rows && out.size() == lanes * all, "softmax: logits must be [D*R, V]");
    const BlockedShape classes{1, shape_.classes, 1, shape_.tiling.blocks.count};
    const std::size_t width = size(classes.width()), padded = width * size(shape_.tiling.blocks.count);
    std::vector<float> blocked(local_blocks() * lanes * width), full(lanes * padded);
    for (std::size_t k = 0; k < blocks_.size(); ++k)
      for (std::size_t lane = 0; lane < lanes; ++lane)
        std::ranges::copy(logits_of(lane / rows, k, size(t) * rows + lane % rows),
                          blocked.begin() + length((k * lanes + lane) * width));
    gather_.run(1, static_cast<int>(lanes), static_cast<int>(width), blocked, full.data(), full.size());
    for (std::size_t lane = 0; lane < lanes; ++lane)
      std::copy_n(full.begin() + length(lane * padded), all, out.begin() + length(lane * all));
  }

 private:
  static constexpr std::size_t kChunkRows = 64;  // part of the calls' shapes: not for any grid to change

  std::size_t groups() const { return size(shape_.tiling.groups.local); }
  std::size_t local_blocks() const { return size(shape_.tiling.blocks.local); }

  void begin(int time_steps, std::span<const float> input, std::span<const std::int32_t> targets) {
    check(time_steps >= 1 && time_steps <= shape_.max_time_steps, "softmax: time steps out of range");
    rows_ = size(time_steps) * size(shape_.tiling.rows);
    check(targets.size() == groups() * rows_, "softmax: targets must be [D, T, R]");
    check(input.size() == targets.size() * hidden_, "softmax: input must be [D, T, R, H]");
    check(std::ranges::all_of(targets, [&](auto v) { return v >= -1 && v < shape_.classes; }),
          "softmax: a target is neither a class nor -1");
    input_ = input;
    targets_.assign(targets.begin(), targets.end());
    logits_.resize(targets.size() * classes_);
    maxima_.resize(targets.size());
    totals_.resize(2 * targets.size());
    make_products();
  }

  // One primitive per shape, made before threads ask for them.
  void make_products() {
    for (const std::size_t rows : {std::min(rows_, kChunkRows), rows_ % kChunkRows})
      for (const ClassBlock& block : blocks_) {
        if (rows == 0) continue;
        const std::int64_t m = length(rows), n = length(block.width), h = shape_.inputs;
        logit_products_.try_emplace({rows, block.width}, m, n, h, h, n);
        d_input_products_.try_emplace({rows, block.width}, m, h, n, n, h);
      }
    for (const ClassBlock& block : blocks_) {
      const std::int64_t n = length(block.width), h = shape_.inputs;
      d_W_products_.try_emplace({rows_, block.width}, GemmShape{.m = n,
                                                                .n = h,
                                                                .k = length(rows_),
                                                                .a = {.row = 1, .column = n},
                                                                .b = {.row = h, .column = 1},
                                                                .c_row = h});
    }
  }

  // work(chunk, scratch of the calling thread) over the chunks of the groups [first, first + count).
  template <class Work>
  void for_chunks_of(std::size_t first, std::size_t count, const Work& work) {
    const std::size_t chunks = (rows_ + kChunkRows - 1) / kChunkRows;
    parallel_for(threads_, size(threads_), [&](std::size_t worker) {
      for (std::size_t i = worker; i < count * chunks; i += size(threads_)) {
        const std::size_t row = i % chunks * kChunkRows;
        work(Chunk{first + i / chunks, row, std::min(kChunkRows, rows_ - row)}, chunk_scratch_[worker]);
      }
    });
  }
  template <class Work>
  void for_chunks(const Work& work) {
    for_chunks_of(0, groups(), work);
  }

  // Tiles of logits: [D, T*R, width] for one block after another inside a group.
  std::span<float> logits_of(std::size_t group, std::size_t k, std::size_t row) {
    const ClassBlock& block = blocks_[k];
    const std::size_t tile = rows_ * (group * classes_ + block.offset);
    return std::span(logits_).subspan(tile + row * block.width, block.width);
  }
  std::span<float> d_logits_of(std::size_t k, std::size_t row) {
    const ClassBlock& block = blocks_[k];
    return std::span(d_logits_).subspan(rows_ * block.offset + row * block.width, block.width);
  }

  void compute_logits(const Chunk& chunk) {
    const std::size_t first = chunk.group * rows_ + chunk.first_row;
    std::fill_n(&maxima_[first], chunk.rows, -std::numeric_limits<float>::infinity());
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      const ClassBlock& block = blocks_[k];
      logit_products_.at({chunk.rows, block.width})
          .run(&input_[first * hidden_], block.W_transposed,
               logits_of(chunk.group, k, chunk.first_row).data());
      for (std::size_t row = 0; row < chunk.rows; ++row) {
        const auto bias = std::span<const float>(bias_).subspan(block.offset, block.width);
        const float max = softmax_rows::add_bias(bias, logits_of(chunk.group, k, chunk.first_row + row));
        maxima_[first + row] = std::max(maxima_[first + row], max);
      }
    }
  }

  void compute_totals(const Chunk& chunk) {
    for (std::size_t row = chunk.first_row; row < chunk.first_row + chunk.rows; ++row) {
      const std::size_t i = chunk.group * rows_ + row;
      sum_of(i) = tree_sum(local_blocks(), [&](std::size_t k) {
        return k < blocks_.size()
                   ? static_cast<double>(softmax_rows::sum_exp(logits_of(chunk.group, k, row), maxima_[i]))
                   : 0.0;
      });
      target_logit(i) = 0;
      for (std::size_t k = 0; k < blocks_.size(); ++k)
        if (owns(k, targets_[i])) target_logit(i) = *element(k, logits_of(chunk.group, k, row), targets_[i]);
    }
  }

  double& sum_of(std::size_t i) { return totals_[i]; }
  double& target_logit(std::size_t i) { return totals_[targets_.size() + i]; }

  bool owns(std::size_t k, std::int32_t target) const {
    return target >= blocks_[k].first_class && size(target - blocks_[k].first_class) < blocks_[k].width;
  }
  float* element(std::size_t k, std::span<float> row, std::int32_t target) const {
    return &row[size(target - blocks_[k].first_class)];
  }

  double group_loss(std::size_t group) {
    const std::size_t lanes = size(shape_.tiling.rows);
    double total = 0;
    for (std::size_t row = 0; row < rows_; row += lanes) {
      double of_step = 0;
      for (std::size_t i = group * rows_ + row; i < group * rows_ + row + lanes; ++i)
        if (targets_[i] >= 0) of_step += std::log(sum_of(i)) + (maxima_[i] - target_logit(i));
      total += of_step;
    }
    return total;
  }

  void compute_d_logits(const Chunk& chunk, float scale) {
    for (std::size_t k = 0; k < blocks_.size(); ++k)
      for (std::size_t row = chunk.first_row; row < chunk.first_row + chunk.rows; ++row) {
        const std::size_t i = chunk.group * rows_ + row;
        const std::span<float> d = d_logits_of(k, row);
        const double factor = targets_[i] >= 0 ? scale / sum_of(i) : 0;
        softmax_rows::scaled_exp(logits_of(chunk.group, k, row), maxima_[i], static_cast<float>(factor), d);
        if (owns(k, targets_[i])) *element(k, d, targets_[i]) -= scale;
      }
  }

  // Each class block contributes to all inputs: dz W, [K, rows, H].
  void add_d_input(const Chunk& chunk, std::vector<float>& partials) {
    const std::size_t of_block = chunk.rows * hidden_;
    partials.resize(local_blocks() * of_block);
    std::fill(partials.begin() + length(blocks_.size() * of_block), partials.end(), 0.0f);
    for (std::size_t k = 0; k < blocks_.size(); ++k)
      d_input_products_.at({chunk.rows, blocks_[k].width})
          .run(d_logits_of(k, chunk.first_row).data(), blocks_[k].W, &partials[k * of_block]);
    input_gradient_.add(static_cast<int>(chunk.group), static_cast<int>(chunk.first_row),
                        static_cast<int>(chunk.rows), partials);
  }

  // dW = dz^T h and db = the column sums of dz, row after row.
  void compute_d_parameters(std::size_t group, std::span<float> d_W) {
    parallel_for(threads_, blocks_.size(), [&](std::size_t k) {
      const ClassBlock& block = blocks_[k];
      d_W_products_.at({rows_, block.width})
          .run(d_logits_of(k, 0).data(), &input_[group * rows_ * hidden_], &d_W[block.offset * hidden_]);
      float* d_bias = &d_bias_of_group_[group * classes_ + block.offset];
      const float* d_logits = d_logits_of(k, 0).data();
      for (std::size_t row = 0; row < rows_; ++row, d_logits += block.width)
        for (std::size_t v = 0; v < block.width; ++v) d_bias[v] += d_logits[v];
    });
  }

  using RowsAndWidth = std::pair<std::size_t, std::size_t>;

  SoftmaxShape shape_;
  std::size_t hidden_;
  int threads_;
  Communicator& model_axis_;
  BlockGather gather_;
  BlockSum input_gradient_;
  ArrayTree tree_;
  std::vector<std::vector<float>> chunk_scratch_;  ///< per thread
  std::vector<ClassBlock> blocks_;                 ///< those that are not empty
  std::size_t classes_ = 0;                        ///< of this rank
  std::vector<float> bias_;                        ///< [classes]
  std::map<RowsAndWidth, PackedGemm> logit_products_, d_input_products_;
  std::map<RowsAndWidth, Gemm> d_W_products_;

  // Of the latest forward(); rows are [D, T, R].
  std::size_t rows_ = 0;  ///< T*R
  std::span<const float> input_;
  std::vector<std::int32_t> targets_;
  std::vector<float> logits_, maxima_;
  std::vector<double> totals_;          ///< [2, rows]: sums of exp(logit - max), logits of the targets
  std::vector<float> d_logits_;         ///< of one lane group
  std::vector<float> d_bias_of_group_;  ///< [D, classes]
};

}  // namespace

std::unique_ptr<SoftmaxOutput> make_cpu_softmax_output(const SoftmaxShape& shape, Communicator& model_axis,
                                                       int threads) {
  return std::make_unique<CpuSoftmaxOutput>(shape, model_axis, threads);
}

}  // namespace lamina
