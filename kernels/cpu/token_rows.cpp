#include "kernels/cpu/token_rows.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "runtime/error.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

}  // namespace

TokenRows::TokenRows(const RecurrenceShape& shape, RecurrenceProducts& products, Communicator& model_axis,
                     int threads)
    : rows_(size(shape.table_rows)),
      inputs_(size(shape.inputs)),
      groups_(size(shape.tiling.groups.local)),
      blocks_(size(shape.tiling.blocks.local)),
      blocks_of_layer_(size(shape.tiling.blocks.count)),
      gates_(4 * size(shape.hidden / shape.tiling.blocks.count)),
      normalized_(shape.normalization == Normalization::layer),
      replicated_(shape.exchange == Exchange::replicated),
      epsilon_(shape.epsilon),
      threads_(threads),
      products_(products),
      gather_(shape.tiling.blocks, model_axis),
      table_sum_(shape.tiling.blocks, model_axis),
      statistics_(shape.tiling.blocks.local, model_axis),
      group_tree_(threads) {
  check(shape.inputs % shape.tiling.blocks.count == 0, "recurrence: a table's width must divide into blocks");
  table_.resize(rows_ * inputs_);
  a_x_.resize(blocks_ * tile_size());
  own_terms_.resize(a_x_.size());
  if (replicated_) all_terms_.resize(blocks_of_layer_ * tile_size());
  sums_.resize(groups_ * a_x_.size());
  d_bias_.resize(groups_ * blocks_ * gates_);
  d_table_of_rank_.resize(std::min(kChunkRows, rows_) * inputs_);
  if (groups_ > 1) d_table_of_groups_.resize(groups_ * table_.size() / blocks_of_layer_ * blocks_);
  if (!normalized_) return;
  mean_.resize(rows_);
  scale_.resize(rows_);
  d_gain_x_.resize(d_bias_.size());
}

void TokenRows::set_parameters(const LstmParameters<const float>& parameters) {
  const Span span(SpanKind::pointwise, "input table");
  const std::size_t own_inputs = inputs_ / blocks_of_layer_;
  check(parameters.table.size() == blocks_ * rows_ * own_inputs, "recurrence: the table must be [K, V, I/G]");
  check(!normalized_ || parameters.gain_x.size() == blocks_ * gates_, "recurrence: gain_x must be [K, 4, U]");
  gather_.run(1, static_cast<int>(rows_), static_cast<int>(own_inputs), parameters.table, table_.data(), 0);
  gain_x_.assign(parameters.gain_x.begin(), parameters.gain_x.end());

  if (normalized_) statistics_.start(rows_);
  products_.set_input(rows_, table_.data());
  products_.prepare_input(0, rows_, threads_);
  for_chunks([&](std::size_t k, std::size_t first, std::size_t rows) {
    float* a_x = &a_x_[k * tile_size() + first * gates_];
    products_.input(k, first, rows, a_x);
    if (normalized_)
      row_moments(a_x, rows, gates_, statistics_.first(k) + first, statistics_.second(k) + first);
  });
  if (normalized_) statistics_.merge_moments(gates_, epsilon_, mean_.data(), scale_.data());
  for_chunks([&](std::size_t k, std::size_t first, std::size_t rows) {
    float* terms = &own_terms_[k * tile_size() + first * gates_];
    const float* bias = &parameters.bias[k * gates_];
    if (normalized_)
      input_terms(normalized_input(k, first, rows), bias, terms);
    else
      input_terms(rows, gates_, &a_x_[k * tile_size() + first * gates_], bias, terms);
  });
  if (replicated_)
    gather_.run_blocked(1, static_cast<int>(rows_), static_cast<int>(gates_), own_terms_, all_terms_);
}

NormalizedInput TokenRows::normalized_input(std::size_t k, std::size_t first, std::size_t rows) const {
  return {rows,
          gates_,
          &a_x_[k * tile_size() + first * gates_],
          {&mean_[first], &scale_[first]},
          &gain_x_[k * gates_]};
}

void TokenRows::begin_backward() {
  parallel_for(threads_, groups_ * blocks_,
               [&](std::size_t tile) { std::fill_n(sums_.data() + tile * tile_size(), tile_size(), 0.0f); });
}

void TokenRows::finish_backward(const LstmParameters<float>& d, const std::function<void()>& give_turn) {
  const Span span(SpanKind::pointwise, "input table backward");
  check(d.table.size() == table_.size() / blocks_of_layer_ * blocks_,
        "recurrence: the gradient of the table must be [K, V, I/G]");
  normalization_backward();
  sum_over_groups(d_bias_, d.bias);
  if (normalized_) sum_over_groups(d_gain_x_, d.gain_x);
  group_tree_.sum(groups_, d.W_x, [&](std::size_t group, std::span<float> d_W_x) {
    products_.weight_x_gradient(rows_, sums(group, 0), tile_size(), table_.data(), d_W_x.data(), threads_,
                                give_turn);
  });
  table_gradient(d.table, give_turn);
}

// From the sums of dz to da_x, and what they give gain and bias.
void TokenRows::normalization_backward() {
  if (!normalized_)
    return parallel_for(threads_, groups_ * blocks_, [&](std::size_t tile) {
      input_backward(rows_, gates_, &sums_[tile * tile_size()], &d_bias_[tile * gates_]);
      products_.set_gradient(rows_, &sums_[tile * tile_size()]);
    });
  statistics_.start(groups_ * rows_);
  parallel_for(threads_, groups_ * blocks_, [&](std::size_t tile) {
    const std::size_t d = tile / blocks_, k = tile % blocks_;
    input_sums(normalized_input(k, 0, rows_), sums(d, k),
               {statistics_.first(k) + d * rows_, statistics_.second(k) + d * rows_});
  });
  const RowStatistics::Means means = statistics_.merge_sums(gates_ * blocks_of_layer_);
  parallel_for(threads_, groups_ * blocks_, [&](std::size_t tile) {
    const std::size_t d = tile / blocks_, k = tile % blocks_;
    const RowStatistics::Means of_group = means.from(d * rows_);
    input_backward(normalized_input(k, 0, rows_), of_group.first, of_group.second, sums(d, k),
                   &d_gain_x_[tile * gates_], &d_bias_[tile * gates_]);
    products_.set_gradient(rows_, sums(d, k));
  });
}

// dL/dx of each row = the sum over all unit blocks of da_x W_x.
void TokenRows::table_gradient(std::span<float> d_table, const std::function<void()>& give_turn) {
  table_sum_.start(static_cast<int>(groups_), static_cast<int>(rows_),
                   static_cast<int>(inputs_ / blocks_of_layer_),
                   groups_ == 1 ? d_table : std::span<float>(d_table_of_groups_));
  for (std::size_t d = 0; d < groups_; ++d)
    for (std::size_t first = 0; first < rows_; first += kChunkRows) {
      const std::size_t count = std::min(kChunkRows, rows_ - first);
      parallel_for(threads_, products_.input_parts(), [&](std::size_t part) {
        products_.input_backward(part, count, sums(d, 0) + first * gates_, tile_size(),
                                 d_table_of_rank_.data());
      });
      table_sum_.set(static_cast<int>(d), static_cast<int>(first), static_cast<int>(count),
                     d_table_of_rank_.data());
      give_turn();
    }
  table_sum_.finish();
  if (groups_ == 1) return;
  group_tree_.sum(groups_, d_table, [&](std::size_t d, std::span<float> of_group) {
    std::copy_n(&d_table_of_groups_[d * d_table.size()], of_group.size(), of_group.begin());
  });
}

// [D, K, 4U] -> [K, 4U].
void TokenRows::sum_over_groups(const std::vector<float>& of_groups, std::span<float> out) const {
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = tree_sum(groups_, [&](std::size_t d) { return of_groups[d * out.size() + i]; });
}

}  // namespace lamina
