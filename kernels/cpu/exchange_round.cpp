#include "kernels/cpu/exchange_round.h"

#include <algorithm>
#include <utility>

namespace lamina {

void ExchangeRound::exchange() {
  exchange_gathers();
  exchange_part_sums();
  exchange_sums();
  clear();
}

void ExchangeRound::clear() {
  gathers_.clear();
  part_sums_.clear();
  sums_.clear();
}

void ExchangeRound::exchange_gathers() {
  if (gathers_.size() == 1) {
    axis_.all_gather_pieces(gathers_.front().part, gathers_.front().take);
  } else if (gathers_.size() > 1) {
    joint_.clear();
    for (const Gather& gather : gathers_) joint_.insert(joint_.end(), gather.part.begin(), gather.part.end());
    const auto hand_out = [this](int rank, std::size_t first, std::span<const float> values) {
      std::size_t begin = 0;
      for (const Gather& gather : gathers_) {
        const std::size_t end = begin + gather.part.size();
        const std::size_t from = std::max(first, begin), to = std::min(first + values.size(), end);
        if (from < to) gather.take(rank, from - begin, values.subspan(from - first, to - from));
        begin = end;
      }
    };
    axis_.all_gather_pieces(std::span<const float>(joint_), hand_out);
  }
}

// Rank by rank the parts of all sums, as reduce_scatter() cuts them.
void ExchangeRound::exchange_part_sums() {
  if (part_sums_.size() == 1) {
    axis_.reduce_scatter(part_sums_.front().in, part_sums_.front().out);
  } else if (part_sums_.size() > 1) {
    joint_.clear();
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(axis_.size()); ++rank)
      for (const auto& [in, out] : part_sums_) {
        const auto part = in.subspan(rank * out.size(), out.size());
        joint_.insert(joint_.end(), part.begin(), part.end());
      }
    joint_out_.resize(joint_.size() / static_cast<std::size_t>(axis_.size()));
    axis_.reduce_scatter(std::span<const float>(joint_), std::span(joint_out_));
    const float* sums = joint_out_.data();
    for (const auto& [in, out] : part_sums_) {
      std::copy_n(sums, out.size(), out.data());
      sums += out.size();
    }
  }
}

void ExchangeRound::exchange_sums() {
  if (sums_.size() == 1) {
    axis_.all_reduce(sums_.front());
  } else if (sums_.size() > 1) {
    joint_.clear();
    for (const std::span<float> values : sums_) joint_.insert(joint_.end(), values.begin(), values.end());
    axis_.all_reduce(std::span(joint_));
    const float* sums = joint_.data();
    for (const std::span<float> values : sums_) {
      std::copy_n(sums, values.size(), values.data());
      sums += values.size();
    }
  }
}

}  // namespace lamina
