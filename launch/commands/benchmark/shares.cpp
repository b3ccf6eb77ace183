#include "launch/commands/benchmark/shares.h"

#include <numeric>

namespace lamina {

KindShares shares_of(const KindTimes& own, Communicator& world) {
  KindTimes all = own;
  world.all_reduce(std::span<std::int64_t>(all));
  const auto sum = std::accumulate(all.begin(), all.end(), std::int64_t{0});
  KindShares shares{};
  if (sum == 0) shares[static_cast<std::size_t>(SpanKind::other)] = 1;
  for (std::size_t i = 0; i < all.size() && sum > 0; ++i)
    shares[i] = static_cast<double>(all[i]) / static_cast<double>(sum);
  return shares;
}

double exposed_communication(const KindShares& shares) {
  return shares[static_cast<std::size_t>(SpanKind::exchange)] +
         shares[static_cast<std::size_t>(SpanKind::waiting)];
}

}  // namespace lamina
