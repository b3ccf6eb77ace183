#include "kernels/cpu/recurrence_products.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"

namespace lamina {
namespace {

constexpr std::size_t kChunkRows = 128;  // part of the calls' shapes: not for any grid to change

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

std::vector<PackedMatrix> matrices(int count, std::int64_t k, std::int64_t n) {
  std::vector<PackedMatrix> made;
  for (int i = 0; i < count; ++i) made.emplace_back(k, n);
  return made;
}

}  // namespace

RecurrenceProducts::RecurrenceProducts(const RecurrenceShape& shape)
    : inputs_(shape.inputs),
      hidden_(shape.hidden),
      gates_(4 * shape.hidden / shape.tiling.blocks.count),
      rows_(shape.tiling.rows),
      W_x_(matrices(shape.tiling.blocks.local, gates_, inputs_)),
      W_x_transposed_(matrices(shape.tiling.blocks.local, inputs_, gates_)),
      W_h_(matrices(shape.tiling.blocks.local, gates_, hidden_)),
      W_h_transposed_(matrices(shape.tiling.blocks.local, hidden_, gates_)),
      recurrent_{PackedGemm(rows_, gates_, hidden_, hidden_, gates_),
                 PackedGemm(rows_, hidden_, gates_, gates_, hidden_)} {}

void RecurrenceProducts::set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads) {
  parallel_for(threads, W_h_.size(), [&](std::size_t k) {
    const float* x = W_x.data() + k * size(gates_ * inputs_);
    const float* h = W_h.data() + k * size(gates_ * hidden_);
    W_x_[k].set(x, {.row = inputs_, .column = 1});
    W_x_transposed_[k].set(x, {.row = 1, .column = inputs_});
    W_h_[k].set(h, {.row = hidden_, .column = 1});
    W_h_transposed_[k].set(h, {.row = 1, .column = hidden_});
  });
}

void RecurrenceProducts::prepare(int time_steps) {
  sequence_rows_ = size(time_steps) * size(rows_);
  for (const std::size_t chunk : {chunk_rows(), sequence_rows_ % chunk_rows()}) {
    if (chunk == 0 || input_.contains(chunk)) continue;
    const auto rows = static_cast<std::int64_t>(chunk);
    input_.emplace(chunk, OfRows{PackedGemm(rows, gates_, inputs_, inputs_, gates_),
                                 PackedGemm(rows, inputs_, gates_, gates_, inputs_)});
  }
  if (!weights_.contains(time_steps)) weights_.emplace(time_steps, make_weight_products(time_steps));
  current_ = &weights_.at(time_steps);
}

std::size_t RecurrenceProducts::chunk_rows() const { return std::min(kChunkRows, sequence_rows_); }

RecurrenceProducts::OfSteps RecurrenceProducts::make_weight_products(int time_steps) const {
  const auto shape = [this](std::int64_t columns, std::int64_t rows, bool accumulate) {
    return GemmShape{.m = gates_,
                     .n = columns,
                     .k = rows,
                     .a = {.row = 1, .column = gates_},
                     .b = {.row = columns, .column = 1},
                     .c_row = columns,
                     .accumulate = accumulate};
  };
  OfSteps made{Gemm(shape(inputs_, time_steps * rows_, false)), Gemm(shape(hidden_, rows_, false)), {}};
  if (time_steps > 1) made.W_h_rest.emplace_back(shape(hidden_, (time_steps - 1) * rows_, true));
  return made;
}

void RecurrenceProducts::input(std::size_t k, std::size_t rows, const float* x, float* a_x) const {
  input_.at(rows).forward.run(x, W_x_transposed_[k], a_x);
}

void RecurrenceProducts::input_backward(std::size_t k, std::size_t rows, const float* da_x,
                                        float* d_x) const {
  input_.at(rows).backward.run(da_x, W_x_[k], d_x);
}

void RecurrenceProducts::recurrent(std::size_t k, const float* h, float* a_h) const {
  recurrent_.forward.run(h, W_h_transposed_[k], a_h);
}

void RecurrenceProducts::recurrent_backward(std::size_t k, const float* da_h, float* d_h) const {
  recurrent_.backward.run(da_h, W_h_[k], d_h);
}

void RecurrenceProducts::weight_x_gradient(const float* da_x, const float* x, float* d_W_x) const {
  current_->W_x.run(da_x, x, d_W_x);
}

void RecurrenceProducts::weight_h_gradient(const float* da_h, const float* h_first, const float* output,
                                           float* d_W_h) const {
  current_->W_h_first.run(da_h, h_first, d_W_h);
  for (const Gemm& rest : current_->W_h_rest) rest.run(da_h + rows_ * gates_, output, d_W_h);
}

}  // namespace lamina
