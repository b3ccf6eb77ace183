#include "kernels/cpu/exchange_round.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {

void ExchangeRound::sum_parts(std::span<const float> in, std::span<float> out) {
  check(in.size() == out.size() * static_cast<std::size_t>(axis_.size()),
        "exchange round: in must hold a part for each rank");
  part_sums_.push_back({in, out});
}

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
  if (gathers_.size() == 1 || alone()) {
    for (const Gather& gather : gathers_) axis_.all_gather_pieces(gather.part, gather.take);
  } else if (!gathers_.empty()) {
    const Span span(SpanKind::pointwise, "common messages");
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
  if (part_sums_.size() == 1 || alone()) {
    for (const auto& [in, out] : part_sums_) axis_.reduce_scatter(in, out);
  } else if (!part_sums_.empty()) {
    const Span span(SpanKind::pointwise, "common messages");
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
  if (sums_.size() == 1 || alone()) {
    for (const std::span<float> values : sums_) axis_.all_reduce(values);
  } else if (!sums_.empty()) {
    const Span span(SpanKind::pointwise, "common messages");
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
