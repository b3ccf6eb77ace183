// For a prediction with logits z = W h + b and target y:
//   max = max z,  sum = sum exp(z - max),  loss = ln(sum) + max - z_y,  dz = exp(z - max) / sum - onehot(y).
// Every class block is seen as equally wide, `width` classes: the last ones are filled up with classes whose
// weights are 0, and which no row statistic counts. So all products of a kind have one shape, and the classes
// of this rank are the first of [K, width].
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/matrix_product.h"
#include "kernels/cuda/softmax_output.h"
#include "kernels/cuda/tree.cuh"
#include "kernels/cuda/upload.h"
#include "runtime/error.h"
#include "runtime/parameter.h"
#include "runtime/trace.h"

namespace lamina::cuda {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }
std::int64_t length(std::size_t n) { return static_cast<std::int64_t>(n); }

/// Of one row over some of the classes; four floats where it travels.
struct RowStatistics {
  double sum;    ///< of exp(z - max)
  float max;     ///< -infinity of no classes
  float target;  ///< z of the target; 0 where another part has it
};
constexpr std::size_t kFloatsOfStatistics = sizeof(RowStatistics) / sizeof(float);

/// Logits are [D, K, rows, width], statistics and targets [D, rows], rows = T*R.
struct LogitSizes {
  std::size_t groups, blocks, rows, width;
  std::size_t classes;      ///< of this rank
  std::size_t first_class;  ///< of this rank

  __host__ __device__ std::size_t tiles() const { return groups * blocks; }
  /// Classes of a block that are not filling.
  __device__ std::size_t real_width(std::size_t block) const {
    const std::size_t before = block * width;
    return before >= classes ? 0 : min(classes - before, width);
  }
  /// The place of a target in a block, or another number.
  __device__ std::size_t place(std::int32_t target, std::size_t block) const {
    return static_cast<std::size_t>(target) - first_class - block * width;
  }
};

/// exp(z - max), where a whole row of -infinity has no NaN.
__device__ float shifted_exp(float z, float max) {
  return z == -std::numeric_limits<float>::infinity() ? 0 : expf(z - max);
}

__device__ RowStatistics merged(const RowStatistics& left, const RowStatistics& right) {
  const float max = fmaxf(left.max, right.max);
  const auto weight = [max](float of) {
    return of == max ? 1.0 : exp(static_cast<double>(of) - static_cast<double>(max));
  };
  return {left.sum * weight(left.max) + right.sum * weight(right.max), max, left.target + right.target};
}

// logits += bias; the statistics of each row and block, [K, D, rows].
__global__ void describe_rows(LogitSizes sizes, const float* bias, const std::int32_t* targets, float* logits,
                              RowStatistics* statistics) {
  for (std::size_t item = first_row(); item < sizes.tiles() * sizes.rows; item += row_stride()) {
    const std::size_t row = item % sizes.rows, k = item / sizes.rows % sizes.blocks;
    const std::size_t i = item / sizes.rows / sizes.blocks * sizes.rows + row;
    const std::size_t real = sizes.real_width(k), target = sizes.place(targets[i], k);
    float* z = logits + item * sizes.width;
    float max = -std::numeric_limits<float>::infinity(), of_target = 0;
    for (std::size_t v = threadIdx.x; v < real; v += kWarp) {
      z[v] += bias[k * sizes.width + v];
      max = fmaxf(max, z[v]);
      if (v == target) of_target = z[v];
    }
    max = max_of_lanes(max);
    double sum = 0;
    for (std::size_t v = threadIdx.x; v < real; v += kWarp) sum += shifted_exp(z[v], max);
    sum = sum_of_lanes(sum);
    of_target = sum_of_lanes(of_target);
    if (threadIdx.x == 0) statistics[k * sizes.groups * sizes.rows + i] = {sum, max, of_target};
  }
}

// parts: [count, rows]
__global__ void merge_statistics(int count, std::size_t rows, const RowStatistics* parts,
                                 RowStatistics* out) {
  for (std::size_t i = first_element(); i < rows; i += element_stride())
    out[i] = tree_merge(
        count, [&](int part) { return parts[static_cast<std::size_t>(part) * rows + i]; },
        [](const RowStatistics& left, const RowStatistics& right) { return merged(left, right); });
}

__global__ void find_losses(std::size_t rows, const RowStatistics* statistics, const std::int32_t* targets,
                            double* losses) {
  for (std::size_t i = first_element(); i < rows; i += element_stride()) {
    const RowStatistics& row = statistics[i];
    losses[i] =
        targets[i] >= 0 ? log(row.sum) + (static_cast<double>(row.max) - static_cast<double>(row.target)) : 0;
  }
}

__global__ void find_d_logits(LogitSizes sizes, float scale, const RowStatistics* statistics,
                              const std::int32_t* targets, const float* logits, float* d_logits) {
  for (std::size_t item = first_row(); item < sizes.tiles() * sizes.rows; item += row_stride()) {
    const std::size_t row = item % sizes.rows, k = item / sizes.rows % sizes.blocks;
    const std::size_t i = item / sizes.rows / sizes.blocks * sizes.rows + row;
    const std::size_t real = targets[i] >= 0 ? sizes.real_width(k) : 0;
    const std::size_t target = sizes.place(targets[i], k);
    const float max = statistics[i].max;
    const float factor = static_cast<float>(static_cast<double>(scale) / statistics[i].sum);
    const float* z = logits + item * sizes.width;
    float* d = d_logits + item * sizes.width;
    for (std::size_t v = threadIdx.x; v < real; v += kWarp)
      d[v] = factor * shifted_exp(z[v], max) - (v == target ? scale : 0);
    for (std::size_t v = real + threadIdx.x; v < sizes.width; v += kWarp) d[v] = 0;
  }
}

constexpr unsigned kSlices = 8;  // of a column's sum: part of its definition

// sums: [D, K, width], of the rows of d_logits. A block of kWarp x kSlices threads sums kWarp columns.
__global__ void sum_columns(LogitSizes sizes, const float* d_logits, float* sums) {
  __shared__ float slices[kSlices][kWarp];
  const std::size_t strips = (sizes.width + kWarp - 1) / kWarp;
  for (std::size_t item = blockIdx.x; item < sizes.tiles() * strips; item += gridDim.x) {
    const std::size_t tile = item / strips, v = item % strips * kWarp + threadIdx.x;
    const float* column = d_logits + tile * sizes.rows * sizes.width + v;
    float sum = 0;
    if (v < sizes.width)
      for (std::size_t row = threadIdx.y; row < sizes.rows; row += kSlices) sum += column[row * sizes.width];
    slices[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && v < sizes.width)
      sums[tile * sizes.width + v] =
          tree_sum(static_cast<int>(kSlices), [&](int slice) { return slices[slice][threadIdx.x]; });
    __syncthreads();
  }
}

// The rows of time step t: [D, K, T*R, width] -> [K, D, R, width].
__global__ void take_time_step(LogitSizes sizes, std::size_t t, std::size_t lanes, const float* logits,
                               float* out) {
  for (std::size_t item = first_row(); item < sizes.tiles() * lanes; item += row_stride()) {
    const std::size_t lane = item % lanes, d = item / lanes % sizes.groups;
    const std::size_t k = item / lanes / sizes.groups;
    const float* from = logits + ((d * sizes.blocks + k) * sizes.rows + t * lanes + lane) * sizes.width;
    for (std::size_t v = threadIdx.x; v < sizes.width; v += kWarp) out[item * sizes.width + v] = from[v];
  }
}

/// The products of passes over one number of time steps; of one block, for all lane groups at once, or of one
/// lane group, for all blocks.
struct Products {
  MatrixProduct logits;   ///< [rows, H] x [width, H]^T of a block
  MatrixProduct d_W;      ///< [rows, width]^T x [rows, H] of a block
  MatrixProduct d_input;  ///< [rows, width] x [width, H] of a lane group
};

class CudaSoftmaxOutput final : public SoftmaxOutput {
 public:
  CudaSoftmaxOutput(Device& device, const SoftmaxShape& shape, Exchange& model_axis)
      : device_(device),
        shape_(shape),
        model_axis_(model_axis),
        classes_of_(BlockedShape{1, shape.classes, 1, shape.tiling.blocks.count}),
        width_(static_cast<std::size_t>(classes_of_.width())),
        targets_(device, max_rows()),
        gather_(device, shape.tiling.blocks, model_axis, blocks() * lanes() * width_),
        input_gradient_(device, shape.tiling.blocks, model_axis, max_rows() * local_inputs()) {
    check(shape.classes >= 1, "softmax: at least one class");
    check(shape.inputs % shape.tiling.blocks.count == 0, "softmax: the inputs must divide into blocks");
    W_ = device.allocate<float>(blocks() * width_ * inputs());
    bias_ = device.allocate<float>(blocks() * width_);
    logits_ = device.allocate<float>(max_rows() * blocks() * width_);
    losses_ = device.allocate<double>(max_rows());
    host_losses_ = PinnedArray<double>(max_rows());
    const std::size_t ranks = size(model_axis.size());
    of_blocks_ = device.allocate<RowStatistics>(blocks() * max_rows());
    of_rank_ = device.allocate<RowStatistics>(max_rows());
    of_ranks_ = device.allocate<RowStatistics>(ranks * max_rows());
    of_all_ = device.allocate<RowStatistics>(max_rows());
    of_step_ = device.allocate<float>(blocks() * lanes() * width_);
    rows_of_step_ = device.allocate<float>(lanes() * width_ * size(shape.tiling.blocks.count));
    host_rows_.resize(rows_of_step_.size());
  }

  void set_parameters(std::span<const float> W, std::span<const float> bias) override {
    check(W.size() == classes() * inputs() && bias.size() == classes(), "softmax: parameters do not fit");
    if (bias.empty()) return;
    device_.copy(W.data(), W_.view().data(), W.size_bytes());
    device_.copy(bias.data(), bias_.view().data(), bias.size_bytes());
  }

  void forward(int time_steps, std::span<const float> input, std::span<const std::int32_t> targets) override {
    const Span span(SpanKind::pointwise, "softmax forward");
    begin(time_steps, input, targets);
    for (std::size_t k = 0; k < blocks(); ++k)
      products().logits.run(input.data(), W_of(k), logits_of(0, k), shape_.tiling.groups.local);
    find_statistics();
    launch(device_, find_losses, for_elements(all_rows()), all_rows(), of_all_.view().data(), targets_.data(),
           losses_.view().data());
    device_.send_to_host(losses_.view().data(), host_losses_.data(), all_rows() * sizeof(double));
  }

  void losses(std::span<double> losses) override {
    check(losses.size() == groups(), "softmax: losses must be [D]");
    device_.synchronize();
    for (std::size_t d = 0; d < groups(); ++d) losses[d] = group_loss(d);
  }

  void backward(float scale, std::span<float> d_input, std::span<float> d_W,
                std::span<float> d_bias) override {
    const Span span(SpanKind::pointwise, "softmax backward");
    check(d_W.size() == classes() * inputs() && d_bias.size() == classes(), "softmax: gradients do not fit");
    check(d_input.size() == all_rows() * local_inputs(), "softmax: d_input must be [D, K, T*R, H/G]");
    make_room_for_gradients();
    launch(device_, find_d_logits, for_rows(sizes().tiles() * rows_), sizes(), scale, of_all_.view().data(),
           targets_.data(), logits_.view().data(), d_logits_.view().data());
    compute_d_input(d_input);
    compute_d_W(d_W);
    compute_d_bias(d_bias);
  }

  void logits(int t, std::span<float> out) override {
    const std::size_t all = size(shape_.classes), padded = width_ * size(shape_.tiling.blocks.count);
    check(t >= 0 && size(t) < rows_ / rows_of_group() && out.size() == lanes() * all,
          "softmax: logits must be [D*R, V]");
    launch(device_, take_time_step, for_rows(blocks() * lanes()), sizes(), size(t), rows_of_group(),
           logits_.view().data(), of_step_.view().data());
    gather_.run(1, static_cast<int>(lanes()), static_cast<int>(width_), of_step_.view().data(),
                rows_of_step_.view().data(), 0);
    device_.to_host(rows_of_step_.view().data(), host_rows_.data(), host_rows_.size() * sizeof(float));
    for (std::size_t lane = 0; lane < lanes(); ++lane)
      std::copy_n(host_rows_.begin() + length(lane * padded), all, out.begin() + length(lane * all));
  }

 private:
  std::size_t groups() const { return size(shape_.tiling.groups.local); }
  std::size_t blocks() const { return size(shape_.tiling.blocks.local); }
  std::size_t inputs() const { return size(shape_.inputs); }
  std::size_t local_inputs() const { return inputs() / size(shape_.tiling.blocks.count) * blocks(); }
  std::size_t rows_of_group() const { return size(shape_.tiling.rows); }
  std::size_t lanes() const { return groups() * rows_of_group(); }
  std::size_t max_rows() const { return size(shape_.max_time_steps) * lanes(); }
  std::size_t all_rows() const { return groups() * rows_; }
  std::size_t first_class() const {
    return static_cast<std::size_t>(classes_of_.bound(shape_.tiling.blocks.first));
  }
  /// Of this rank.
  std::size_t classes() const {
    const Share& share = shape_.tiling.blocks;
    return static_cast<std::size_t>(classes_of_.bound(share.first + share.local)) - first_class();
  }
  LogitSizes sizes() const { return {groups(), blocks(), rows_, width_, classes(), first_class()}; }

  std::size_t tile(std::size_t d, std::size_t k) const { return (d * blocks() + k) * rows_ * width_; }
  float* logits_of(std::size_t d, std::size_t k) { return logits_.view().data() + tile(d, k); }
  float* d_logits_of(std::size_t d, std::size_t k) { return d_logits_.view().data() + tile(d, k); }
  float* W_of(std::size_t k) { return W_.view().data() + k * width_ * inputs(); }
  Products& products() { return products_.at(rows_); }

  void begin(int time_steps, std::span<const float> input, std::span<const std::int32_t> targets) {
    check(time_steps >= 1 && time_steps <= shape_.max_time_steps, "softmax: time steps out of range");
    rows_ = size(time_steps) * rows_of_group();
    check(targets.size() == all_rows(), "softmax: targets must be [D, T, R]");
    check(input.size() == targets.size() * inputs(), "softmax: input must be [D, T, R, H]");
    check(std::ranges::all_of(targets, [&](auto v) { return v >= -1 && v < shape_.classes; }),
          "softmax: a target is neither a class nor -1");
    input_ = input;
    targets_.send(targets);
    make_products();
  }

  void make_products() {
    if (products_.contains(rows_)) return;
    const std::int64_t n = length(rows_), w = length(width_), h = shape_.inputs, k = length(blocks());
    const ProductShape logits{.m = n,
                              .n = w,
                              .k = h,
                              .transposed_B = true,
                              .row_A = h,
                              .row_B = h,
                              .row_C = w,
                              .batch_A = n * h,
                              .batch_B = 0,
                              .batch_C = k * n * w};
    const ProductShape d_W{.m = w,
                           .n = h,
                           .k = n,
                           .transposed_A = true,
                           .row_A = w,
                           .row_B = h,
                           .row_C = h,
                           .batch_A = k * n * w,
                           .batch_B = n * h,
                           .batch_C = w * h};
    const ProductShape d_input{.m = n,
                               .n = h,
                               .k = w,
                               .row_A = w,
                               .row_B = h,
                               .row_C = h,
                               .batch_A = n * w,
                               .batch_B = w * h,
                               .batch_C = n * h};
    products_.emplace(rows_, Products{MatrixProduct(device_, logits), MatrixProduct(device_, d_W),
                                      MatrixProduct(device_, d_input)});
  }

  // Of each row: blocks of this rank, then ranks.
  void find_statistics() {
    launch(device_, describe_rows, for_rows(sizes().tiles() * rows_), sizes(), bias_.view().data(),
           targets_.data(), logits_.view().data(), of_blocks_.view().data());
    const auto merge = [&](int count, Buffer<RowStatistics>& parts, Buffer<RowStatistics>& out) {
      launch(device_, merge_statistics, for_elements(all_rows()), count, all_rows(), parts.view().data(),
             out.view().data());
    };
    if (model_axis_.size() == 1) return merge(shape_.tiling.blocks.local, of_blocks_, of_all_);
    merge(shape_.tiling.blocks.local, of_blocks_, of_rank_);
    model_axis_.all_gather(reinterpret_cast<const float*>(of_rank_.view().data()),
                           reinterpret_cast<float*>(of_ranks_.view().data()),
                           all_rows() * kFloatsOfStatistics);
    merge(model_axis_.size(), of_ranks_, of_all_);
  }

  double group_loss(std::size_t group) {
    double total = 0;
    for (std::size_t row = 0; row < rows_; row += rows_of_group()) {
      double of_step = 0;
      for (std::size_t i = 0; i < rows_of_group(); ++i)
        of_step += host_losses_.data()[group * rows_ + row + i];
      total += of_step;
    }
    return total;
  }

  // Not taken by those who only evaluate.
  void make_room_for_gradients() {
    if (d_logits_.size() > 0) return;
    d_logits_ = device_.allocate<float>(logits_.size());
    d_input_of_blocks_ = device_.allocate<float>(blocks() * max_rows() / groups() * inputs());
    d_W_of_groups_ = device_.allocate<float>(groups() * width_ * inputs());
    d_bias_of_groups_ = device_.allocate<float>(groups() * blocks() * width_);
  }

  // Each class block contributes to all inputs: dz W.
  void compute_d_input(std::span<float> d_input) {
    float* const of_blocks = d_input_of_blocks_.view().data();
    input_gradient_.start(shape_.tiling.groups.local, static_cast<int>(rows_),
                          shape_.inputs / shape_.tiling.blocks.count, d_input.data());
    for (std::size_t d = 0; d < groups(); ++d) {
      products().d_input.run(d_logits_of(d, 0), W_of(0), of_blocks, shape_.tiling.blocks.local);
      input_gradient_.add(static_cast<int>(d), 1, of_blocks);
    }
    input_gradient_.finish();
  }

  // dW = dz^T h of each lane group, merged.
  void compute_d_W(std::span<float> d_W) {
    float* const of_groups = d_W_of_groups_.view().data();
    for (std::size_t first = 0; first < classes(); first += width_) {
      products().d_W.run(d_logits_of(0, first / width_), input_.data(), of_groups,
                         shape_.tiling.groups.local);
      sum_in_tree_order(device_, shape_.tiling.groups.local, of_groups, width_ * inputs(),
                        d_W.data() + first * inputs(), std::min(width_, classes() - first) * inputs());
    }
  }

  void compute_d_bias(std::span<float> d_bias) {
    const std::size_t strips = sizes().tiles() * ((width_ + kWarp - 1) / kWarp);
    const LaunchShape shape{dim3(static_cast<unsigned>(std::min<std::size_t>(strips, 65535))),
                            dim3(kWarp, kSlices)};
    launch(device_, sum_columns, shape, sizes(), d_logits_.view().data(), d_bias_of_groups_.view().data());
    sum_in_tree_order(device_, shape_.tiling.groups.local, d_bias_of_groups_.view().data(), blocks() * width_,
                      d_bias.data(), classes());
  }

  Device& device_;
  SoftmaxShape shape_;
  Exchange& model_axis_;
  BlockedShape classes_of_;                   ///< of the blocks
  std::size_t width_;                         ///< of a block, with filling
  std::map<std::size_t, Products> products_;  ///< by rows
  Buffer<float> W_, bias_;                    ///< [K, width, H], [K, width]

  // Of the latest forward().
  std::size_t rows_ = 0;  ///< T*R
  std::span<const float> input_;
  Upload<std::int32_t> targets_;                                   ///< [D, rows]
  Buffer<float> logits_;                                           ///< [D, K, rows, width]
  Buffer<RowStatistics> of_blocks_, of_rank_, of_ranks_, of_all_;  ///< [K, D, rows], …, [M, D, rows], …
  Buffer<double> losses_;                                          ///< [D, rows]
  PinnedArray<double> host_losses_;

  BlockGather gather_;
  Buffer<float> of_step_, rows_of_step_;  ///< [K, D*R, width], [D*R, G * width]
  std::vector<float> host_rows_;

  BlockSum input_gradient_;
  Buffer<float> d_logits_;           ///< [D, K, rows, width]
  Buffer<float> d_input_of_blocks_;  ///< [K, rows, H], of one lane group
  Buffer<float> d_W_of_groups_;      ///< [D, width, H], of one block
  Buffer<float> d_bias_of_groups_;   ///< [D, K, width]
};

}  // namespace

std::unique_ptr<SoftmaxOutput> make_cuda_softmax_output(Device& device, const SoftmaxShape& shape,
                                                        Exchange& model_axis) {
  return std::make_unique<CudaSoftmaxOutput>(device, shape, model_axis);
}

}  // namespace lamina::cuda
