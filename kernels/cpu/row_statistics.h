// Two numbers for each row and unit block, merged over all blocks of a layer in the order of runtime/tree.h:
// mean and M2 (the sum of squared distances from it) for LN's forward pass, two sums for its backward pass.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cpu/exchange_round.h"
#include "runtime/communicator.h"

namespace lamina {

/// Mean and M2 of each of `rows` rows of `width` values; two passes over each row.
void row_moments(const float* values, std::size_t rows, std::size_t width, float* mean, float* m2);

class RowStatistics {
 public:
  /// `blocks` of each rank of `axis`; powers of two. `axis` must outlive this object.
  RowStatistics(int blocks, Communicator& axis);

  /// Makes room for `rows` rows.
  void start(std::size_t rows);
  /// The first or second number of a block of this rank, [rows].
  float* first(std::size_t block) { return partials_.data() + block * 2 * rows_; }
  float* second(std::size_t block) { return first(block) + rows_; }

  /// Chan's formula for (mean, M2) of equally many values: `count` in a row of each block.
  /// mean, scale: [rows], scale = 1 / sqrt(M2 / values + epsilon). Collective.
  void merge_moments(std::size_t count, float epsilon, float* mean, float* scale);

  struct Means {
    const float *first = nullptr, *second = nullptr;

    Means from(std::size_t row) const { return first == nullptr ? *this : Means{first + row, second + row}; }
  };
  /// Sums of both numbers, divided by `count`: [rows], valid until the next call. Collective.
  Means merge_sums(std::size_t count);

  // The same two in halves, between which lies exchange() of a round over the same axis.
  void send_moments(std::size_t count, ExchangeRound& round);
  void take_moments(std::size_t count, float epsilon, float* mean, float* scale);
  void send_sums(ExchangeRound& round);
  Means take_sums(std::size_t count);

 private:
  template <class Merge>
  void merge_own(const Merge& merge_pair);
  template <class Merge>
  float* merge_all(const Merge& merge_pair);
  void send(ExchangeRound& round);
  /// This rank's numbers, its blocks merged.
  std::span<const float> own() const { return std::span(partials_).first(2 * rows_); }

  std::size_t blocks_, rows_ = 0;
  Communicator& axis_;
  std::vector<float> partials_;  ///< [blocks, 2, rows]
  std::vector<float> gathered_;  ///< [ranks, 2, rows]
};

}  // namespace lamina
