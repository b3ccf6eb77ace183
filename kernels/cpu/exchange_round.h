// One exchange over the model axis in which several have something to say: the layers of a wavefront, or the
// two products of a time step.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "runtime/communicator.h"

namespace lamina {

/// Who takes part hands in what it sends; when exchange() returns, everything has come. What is alike travels
/// together, so the ranks wait for each other once, and each sum has the bits that it has alone. All ranks
/// hand in the same, in the same order.
class ExchangeRound {
 public:
  /// `axis` must outlive it.
  explicit ExchangeRound(Communicator& axis) : axis_(axis) {}

  const Communicator& axis() const { return axis_; }

  using Take = std::function<void(int rank, std::size_t first, std::span<const float> values)>;
  /// Communicator::all_gather_pieces(). Here and below, memory stays valid until exchange() returns.
  void gather(std::span<const float> part, Take take) { gathers_.push_back({part, std::move(take)}); }
  /// Communicator::reduce_scatter()
  void sum_parts(std::span<const float> in, std::span<float> out);
  /// Communicator::all_reduce()
  void sum(std::span<float> values) { sums_.push_back(values); }

  /// Collective, unless nothing was handed in.
  void exchange();
  /// Forgets what was handed in, where an exception came before the end of exchange().
  void clear();

 private:
  struct Gather {
    std::span<const float> part;
    Take take;
  };
  struct PartSum {
    std::span<const float> in;
    std::span<float> out;
  };

  bool alone() const { return axis_.size() == 1; }
  void exchange_gathers();
  void exchange_part_sums();
  void exchange_sums();

  Communicator& axis_;
  std::vector<Gather> gathers_;
  std::vector<PartSum> part_sums_;
  std::vector<std::span<float>> sums_;
  std::vector<float> joint_, joint_out_;  ///< of all who take part, one after another
};

}  // namespace lamina
