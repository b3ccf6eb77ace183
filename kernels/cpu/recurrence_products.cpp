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

RecurrenceProducts::RecurrenceProducts(const RecurrenceShape& shape, Communicator& model_axis)
    : blocks_(size(shape.tiling.blocks.local)),
      inputs_(size(shape.inputs)),
      hidden_(size(shape.hidden)),
      gates_(4 * size(shape.hidden / shape.tiling.blocks.count)),
      rows_(size(shape.tiling.rows)),
      operands_(shape.precision == Precision::bf16 ? bf16_operands() : Operands::f32),
      centred_(is_bf16(operands_) && shape.normalization == Normalization::layer),
      W_x_(blocks_, gates_, inputs_, operands_),
      W_x_transposed_(blocks_, inputs_, gates_, operands_),
      W_h_(blocks_, gates_, hidden_, operands_),
      W_h_transposed_(blocks_, hidden_, gates_, operands_),
      x_chunk_(1, chunk_rows(shape), inputs_, operands_),
      h_chunk_(1, chunk_rows(shape), hidden_, operands_),
      scratch_(blocks_),
      h_(size(shape.tiling.groups.local)),
      centre_sum_(shape.tiling.blocks, model_axis) {
  if (is_bf16(operands_)) rounded_h_.resize(h_.size() * rows_ * rounded_stride(hidden_));
  if (!centred_) return;
  const std::size_t blocks = size(shape.tiling.blocks.count);
  centres_.resize((inputs_ + hidden_ + blocks - 1) / blocks * blocks);
  column_sums_.resize(blocks_ * centres_.size());
}

void RecurrenceProducts::set_weights(std::span<const float> W_x, std::span<const float> W_h, int threads) {
  if (centred_) find_centres(W_x, W_h, threads);
  const float* of_x = centred_ ? centres_.data() : nullptr;
  const float* of_h = centred_ ? of_x + inputs_ : nullptr;
  parallel_for(threads, blocks_, [&](std::size_t k) {
    const float* x = W_x.data() + k * gates_ * inputs_;
    const float* h = W_h.data() + k * gates_ * hidden_;
    W_x_.set_rows(k, 0, {x, gates_, inputs_}, of_x);
    W_x_transposed_.set_transposed(k, x, of_x);
    W_h_.set_rows(k, 0, {h, gates_, hidden_}, of_h);
    W_h_transposed_.set_transposed(k, h, of_h);
  });
}

// The means of the columns of W_x and W_h over all gates of the layer: sums of blocks, then over blocks. Any
// other value would do as well, if it is the same for all gates.
void RecurrenceProducts::find_centres(std::span<const float> W_x, std::span<const float> W_h, int threads) {
  std::ranges::fill(column_sums_, 0.0f);
  parallel_for(threads, blocks_, [&](std::size_t k) {
    const auto add = [&](const float* W, std::size_t columns, float* sums) {
      for (std::size_t row = 0; row < gates_; ++row)
        for (std::size_t j = 0; j < columns; ++j) sums[j] += W[row * columns + j];
    };
    float* sums = &column_sums_[k * centres_.size()];
    add(&W_x[k * gates_ * inputs_], inputs_, sums);
    add(&W_h[k * gates_ * hidden_], hidden_, sums + inputs_);
  });
  const std::size_t blocks = 4 * hidden_ / gates_;  // of the layer
  centre_sum_.start(1, 1, static_cast<int>(centres_.size() / blocks));
  centre_sum_.add(0, 0, 1, column_sums_);
  centre_sum_.finish_everywhere(centres_);
  for (float& centre : centres_) centre /= static_cast<float>(4 * hidden_);
}

void RecurrenceProducts::set_input(std::size_t rows, const float* x) {
  given_x_ = x_ = {x, rows, inputs_};
  if (!is_bf16(operands_)) return;
  const std::size_t stride = rounded_stride(inputs_);
  rounded_x_.resize(rows * stride);
  x_ = {rounded_x_.data(), rows, stride};
}

void RecurrenceProducts::prepare_input(std::size_t first_row, std::size_t rows, int threads) {
  constexpr std::size_t kPiece = 64;
  if (!is_bf16(operands_)) return;
  const std::size_t stride = rounded_stride(inputs_);
  parallel_for(threads, (rows + kPiece - 1) / kPiece, [&](std::size_t i) {
    const std::size_t skip = i * kPiece, first = first_row + skip;
    round_rows(given_x_.from(first, std::min(kPiece, rows - skip)), inputs_, operands_,
               &rounded_x_[first * stride], stride);
  });
}

void RecurrenceProducts::set_state(std::size_t d, const float* h) {
  h_[d] = {h, rows_, hidden_};
  if (!is_bf16(operands_)) return;
  const std::size_t stride = rounded_stride(hidden_);
  float* rounded = &rounded_h_[d * rows_ * stride];
  round_rows(h_[d], hidden_, operands_, rounded, stride);
  h_[d] = {rounded, rows_, stride};
}

void RecurrenceProducts::set_gradient(std::size_t rows, float* da) const {
  if (is_bf16(operands_)) round_rows({da, rows, gates_}, gates_, operands_, da, gates_);
}

void RecurrenceProducts::input(std::size_t k, std::size_t first_row, std::size_t rows, float* a_x) const {
  multiply(x_.from(first_row, rows), W_x_transposed_, k, a_x, gates_);
}

void RecurrenceProducts::recurrent(std::size_t d, std::size_t k, float* a_h) const {
  multiply(h_[d], W_h_transposed_, k, a_h, gates_);
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
                                         PanelMatrices& chunk, const Lay& lay, float* d_W, int threads,
                                         const std::function<void()>& give_turn) {
  constexpr std::size_t kPiece = 64;
  for (std::size_t first = 0; first < rows; first += chunk.k()) {
    const std::size_t count = std::min(chunk.k(), rows - first);
    parallel_for(threads, (count + kPiece - 1) / kPiece, [&](std::size_t i) {
      lay(first + i * kPiece, std::min(kPiece, count - i * kPiece), i * kPiece);
    });
    const std::size_t at_once = size(threads);
    for (std::size_t k = 0; k < blocks_; k += at_once) {
      parallel_for(threads, std::min(at_once, blocks_ - k), [&](std::size_t i) {
        const std::size_t block = k + i;
        multiply_transposed({da + block * step + first * gates_, count, gates_}, gates_, chunk, first > 0,
                            scratch_[i], d_W + block * gates_ * chunk.n(), chunk.n());
      });
      give_turn();
    }
  }
}

void RecurrenceProducts::weight_x_gradient(std::size_t rows, const float* da_x, std::size_t step,
                                           const float* x, float* d_W_x, int threads,
                                           const std::function<void()>& give_turn) {
  const auto lay = [&](std::size_t first, std::size_t count, std::size_t place) {
    x_chunk_.set_rows(0, place, Rows{x, rows, inputs_}.from(first, count));
  };
  weight_gradient(rows, da_x, step, x_chunk_, lay, d_W_x, threads, give_turn);
}

void RecurrenceProducts::weight_h_gradient(std::size_t rows, const float* da_h, std::size_t step,
                                           const float* h_first, const float* output, float* d_W_h,
                                           int threads, const std::function<void()>& give_turn) {
  const auto lay = [&](std::size_t first, std::size_t count, std::size_t place) {
    const std::size_t before = first < rows_ ? std::min(count, rows_ - first) : 0;
    if (before > 0) h_chunk_.set_rows(0, place, Rows{h_first, rows_, hidden_}.from(first, before));
    if (before == count) return;
    const Rows later = Rows{output, rows, hidden_}.from(first + before - rows_, count - before);
    h_chunk_.set_rows(0, place + before, later);
  };
  weight_gradient(rows, da_h, step, h_chunk_, lay, d_W_h, threads, give_turn);
}

}  // namespace lamina
