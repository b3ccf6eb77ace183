#include "kernels/cpu/recurrence_products.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"

namespace lamina {
namespace {

// Of the sums of weight gradients: part of their definition, so not for any grid to change.
constexpr std::size_t kChunkRows = 512;
constexpr std::size_t kPanelsOfPart = 2;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

std::size_t chunk_rows(const RecurrenceShape& shape) {
  return std::min(kChunkRows, size(shape.max_time_steps) * size(shape.tiling.rows));
}

}  // namespace

RecurrenceProducts::RecurrenceProducts(const RecurrenceShape& shape)
    : blocks_(size(shape.tiling.blocks.local)),
      inputs_(size(shape.inputs)),
      hidden_(size(shape.hidden)),
      gates_(4 * size(shape.hidden / shape.tiling.blocks.count)),
      rows_(size(shape.tiling.rows)),
      W_x_(blocks_, gates_, inputs_),
      W_x_transposed_(blocks_, inputs_, gates_),
      W_h_(blocks_, gates_, hidden_),
      W_h_transposed_(blocks_, hidden_, gates_),
      x_chunk_(1, chunk_rows(shape), inputs_),
      h_chunk_(1, chunk_rows(shape), hidden_),
      scratch_(blocks_) {}

void RecurrenceProducts::set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads) {
  parallel_for(threads, blocks_, [&](std::size_t k) {
    const float* x = W_x.data() + k * gates_ * inputs_;
    const float* h = W_h.data() + k * gates_ * hidden_;
    W_x_.set_rows(k, 0, {x, gates_, inputs_});
    W_x_transposed_.set_transposed(k, x);
    W_h_.set_rows(k, 0, {h, gates_, hidden_});
    W_h_transposed_.set_transposed(k, h);
  });
}

void RecurrenceProducts::input(std::size_t k, std::size_t rows, const float* x, float* a_x) const {
  multiply({x, rows, inputs_}, W_x_transposed_, k, a_x, gates_);
}

void RecurrenceProducts::recurrent(std::size_t k, const float* h, float* a_h) const {
  multiply({h, rows_, hidden_}, W_h_transposed_, k, a_h, gates_);
}

std::size_t RecurrenceProducts::parts(const PanelMatrices& b) {
  return (b.panels() + kPanelsOfPart - 1) / kPanelsOfPart;
}

void RecurrenceProducts::backward(const PanelMatrices& W, std::size_t part, std::size_t rows, const float* da,
                                  std::size_t step, float* d) const {
  const std::size_t first = part * kPanelsOfPart, last = std::min(first + kPanelsOfPart, W.panels());
  multiply_and_sum({da, rows, gates_}, step, W, first, last, d, W.n());
}

// lay(first, rows, place) copies `rows` rows of the right-hand side, from `first` on, to `place` in `chunk`.
template <class Lay>
void RecurrenceProducts::weight_gradient(std::size_t rows, const float* da, std::size_t step,
                                         PanelMatrices& chunk, const Lay& lay, float* d_W, int threads) {
  constexpr std::size_t kPiece = 64;
  for (std::size_t first = 0; first < rows; first += chunk.k()) {
    const std::size_t count = std::min(chunk.k(), rows - first);
    parallel_for(threads, (count + kPiece - 1) / kPiece, [&](std::size_t i) {
      lay(first + i * kPiece, std::min(kPiece, count - i * kPiece), i * kPiece);
    });
    parallel_for(threads, blocks_, [&](std::size_t k) {
      multiply_transposed({da + k * step + first * gates_, count, gates_}, gates_, chunk, first > 0,
                          scratch_[threads > 1 ? k : 0], d_W + k * gates_ * chunk.n(), chunk.n());
    });
  }
}

void RecurrenceProducts::weight_x_gradient(std::size_t rows, const float* da_x, std::size_t step,
                                           const float* x, float* d_W_x, int threads) {
  const auto lay = [&](std::size_t first, std::size_t count, std::size_t place) {
    x_chunk_.set_rows(0, place, Rows{x, rows, inputs_}.from(first, count));
  };
  weight_gradient(rows, da_x, step, x_chunk_, lay, d_W_x, threads);
}

void RecurrenceProducts::weight_h_gradient(std::size_t rows, const float* da_h, std::size_t step,
                                           const float* h_first, const float* output, float* d_W_h,
                                           int threads) {
  const auto lay = [&](std::size_t first, std::size_t count, std::size_t place) {
    const std::size_t before = first < rows_ ? std::min(count, rows_ - first) : 0;
    if (before > 0) h_chunk_.set_rows(0, place, Rows{h_first, rows_, hidden_}.from(first, before));
    if (before == count) return;
    const Rows later = Rows{output, rows, hidden_}.from(first + before - rows_, count - before);
    h_chunk_.set_rows(0, place + before, later);
  };
  weight_gradient(rows, da_h, step, h_chunk_, lay, d_W_h, threads);
}

}  // namespace lamina
