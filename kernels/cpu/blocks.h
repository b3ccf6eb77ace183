// Unit blocks over the model axis: full activations from blocked ones, and blocked gradients from partial
// sums. Legend of shapes: runtime/backend.h.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "kernels/cpu/exchange_round.h"
#include "runtime/communicator.h"
#include "runtime/tiling.h"

namespace lamina {

/// Blocked values of all model ranks, side by side as complete rows.
class BlockGather {
 public:
  BlockGather(const Share& blocks, Communicator& model_axis);

  /// blocked: [groups, K, rows, width], this rank's blocks. Writes full rows [rows, G * width] of group d at
  /// full + d * group_stride (in elements). Collective.
  void run(int groups, int rows, int width, std::span<const float> blocked, float* full,
           std::size_t group_stride);

  /// The same, with all blocks kept apart: all [groups, G, rows, width]. Collective.
  void run_blocked(int groups, int rows, int width, std::span<const float> blocked, std::span<float> all);

  /// run() in a round with others: `full` is written in its exchange(). One send() at a time.
  void send(int groups, int rows, int width, std::span<const float> blocked, float* full,
            std::size_t group_stride, ExchangeRound& round);

  /// Blocks of several parts, each brought to where it belongs: blocked [groups, K, parts, size]; in the
  /// round's exchange(), part i of block g, of group d, goes to place(d, g, i). One send_parts() at a time.
  using Place = std::function<float*(std::size_t group, std::size_t block, std::size_t part)>;
  void send_parts(int groups, int parts, std::size_t size, std::span<const float> blocked, Place place,
                  ExchangeRound& round);

 private:
  void set_rows(int groups, int rows, int width, std::span<const float> blocked, float* full,
                std::size_t group_stride);
  void take_rows(int rank, std::size_t first, std::span<const float> values) const;
  void take_parts(int rank, std::size_t first, std::span<const float> values) const;

  Share blocks_;
  Communicator& model_axis_;
  struct {
    std::size_t rows, width;
    float* full;
    std::size_t group_stride;
  } rows_to_{};
  struct {
    std::size_t parts, size;
    Place place;
  } parts_to_{};
};

/// Sums over all G blocks of the layer, in the order of runtime/tree.h: each block contributes complete rows,
/// each rank keeps the columns of its own blocks.
///
///   sum.start(groups, rows, width, out);
///   for all d, pieces of rows: sum.add(d, first_row, count, partials);   // from any thread
///   sum.finish();                                                        // collective
///
/// or, when every rank wants the columns of all blocks,
///
///   sum.start(groups, rows, width);  …  sum.finish_everywhere(all);
class BlockSum {
 public:
  BlockSum(const Share& blocks, Communicator& model_axis);

  /// out: blocked [groups, K, rows, width], set by finish().
  void start(int groups, int rows, int width, std::span<float> out = {});
  /// partials: [K, count, G * width], the contributions of this rank's blocks to the rows
  /// [first_row, first_row + count) of a group. Every row exactly once; disjoint rows from several threads.
  void add(int group, int first_row, int count, std::span<const float> partials);
  /// The same for contributions that lie `stride` elements apart: that of block k at partials + k * stride.
  void add(int group, int first_row, int count, const float* partials, std::size_t stride);
  /// The same, already summed over this rank's blocks: sums [count, G * width].
  void set(int group, int first_row, int count, const float* sums);
  void finish();
  /// all: [groups, G, rows, width].
  void finish_everywhere(std::span<float> all);

  // finish() and finish_everywhere() in a round with others: `out` is set by its exchange(), `all` by
  // take_everywhere() behind it. Between, this object is left alone.
  void send(ExchangeRound& round);
  void send_everywhere(ExchangeRound& round);
  void take_everywhere(std::span<float> all) const;

 private:
  bool has_parts() const;
  float* place(int group, std::size_t block, std::size_t row) const;
  void check_rows(int group, int first_row, int count) const;

  Share blocks_;
  Communicator& model_axis_;
  int groups_ = 0, rows_ = 0, width_ = 0;
  std::span<float> out_;
  float* sums_ = nullptr;      ///< packed_, or out_ on a rank that owns all blocks
  std::vector<float> packed_;  ///< [M, groups, K, rows, width]: sums over this rank's blocks, by destination
};

}  // namespace lamina
