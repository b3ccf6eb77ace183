#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "kernels/cuda/recurrence/column_means.h"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/tree.cuh"

namespace lamina::cuda {
namespace {

constexpr int kColumnsOfBlock = 32, kRowsAtOnce = 16;

/// The sums over the rows of blocks [blocks, rows, columns]: of block b at sums + b * stride.
struct ColumnSums {
  const float* values;
  int rows, columns;
  float* sums;
  int stride;
};

// Of a block of rows, blockIdx.y. Thread (x, y) sums rows y, y + 16, … of a column; then the 16 sums are
// added up in order.
__global__ void sum_columns(ColumnSums of) {
  float* sums = shared_memory<float>();
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int column = static_cast<int>(blockIdx.x) * kColumnsOfBlock + x;
  const float* block = of.values + static_cast<std::int64_t>(blockIdx.y) * of.rows * of.columns;
  float sum = 0;
  if (column < of.columns)
    for (int row = y; row < of.rows; row += kRowsAtOnce)
      sum = sum + block[static_cast<std::int64_t>(row) * of.columns + column];
  sums[y * kColumnsOfBlock + x] = sum;
  __syncthreads();
  if (y != 0 || column >= of.columns) return;
  sum = 0;
  for (int i = 0; i < kRowsAtOnce; ++i) sum = sum + sums[i * kColumnsOfBlock + x];
  of.sums[static_cast<std::int64_t>(blockIdx.y) * of.stride + column] = sum;
}

/// sums: [blocks, columns], of `rows` rows in all.
__global__ void merge_sums(int blocks, int columns, float rows, const float* sums, float* means) {
  for (std::size_t i = first_element(); i < static_cast<std::size_t>(columns); i += element_stride())
    means[i] = tree_sum(blocks, [&](int block) { return sums[std::int64_t{block} * columns + i]; }) / rows;
}

std::size_t size(int n) { return static_cast<std::size_t>(n); }

}  // namespace

ColumnMeans::ColumnMeans(Device& device, const Sequence& at, int inputs, Exchange& model_axis)
    : device_(device),
      at_(at),
      inputs_(inputs),
      axis_(model_axis),
      sums_(device.allocate<float>(size(at.own_blocks) * size(columns()))),
      means_(device.allocate<float>(size(columns()))) {
  if (axis_.size() > 1) all_sums_ = device.allocate<float>(size(at.all_blocks) * size(columns()));
}

void ColumnMeans::measure(const float* W_x, const float* W_h) {
  const auto sum = [&](const float* W, int of_matrix, float* sums) {
    launch(device_, sum_columns,
           {.grid = dim3(static_cast<unsigned>((of_matrix + kColumnsOfBlock - 1) / kColumnsOfBlock),
                         static_cast<unsigned>(at_.own_blocks)),
            .block = dim3(kColumnsOfBlock, kRowsAtOnce),
            .shared_bytes = kColumnsOfBlock * kRowsAtOnce * sizeof(float)},
           ColumnSums{W, 4 * at_.units, of_matrix, sums, columns()});
  };
  float *own = sums_.view().data(), *all = axis_.size() > 1 ? all_sums_.view().data() : own;
  sum(W_x, inputs_, own);
  sum(W_h, at_.hidden(), own + inputs_);
  if (axis_.size() > 1) axis_.all_gather(own, all, sums_.size());
  launch(device_, merge_sums, for_elements(size(columns())), at_.all_blocks, columns(),
         static_cast<float>(4 * at_.hidden()), all, means_.view().data());
}

}  // namespace lamina::cuda
