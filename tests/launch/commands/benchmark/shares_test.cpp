#include "launch/commands/benchmark/shares.h"

#include <gtest/gtest.h>

#include <numeric>

namespace lamina {
namespace {

double sum_of(const KindShares& shares) { return std::accumulate(shares.begin(), shares.end(), 0.0); }

TEST(Shares, OfAllRanksTogetherAddUpToOne) {
  run_on_threads(3, [](Communicator& world) {
    KindTimes own{};
    own[0] = 100 * (world.rank() + 1);                       // gemm: 600
    own[static_cast<std::size_t>(SpanKind::exchange)] = 50;  // 150
    own[static_cast<std::size_t>(SpanKind::waiting)] = world.rank() == 1 ? 250 : 0;

    const KindShares shares = shares_of(own, world);

    EXPECT_DOUBLE_EQ(shares[0], 0.6);
    EXPECT_DOUBLE_EQ(exposed_communication(shares), 0.4);
    EXPECT_NEAR(sum_of(shares), 1, 1e-12);
  });
}

TEST(Shares, OfNoTimeAreOther) {
  const auto alone = make_self_communicator();

  const KindShares shares = shares_of({}, *alone);

  EXPECT_EQ(shares[static_cast<std::size_t>(SpanKind::other)], 1);
  EXPECT_EQ(sum_of(shares), 1);
}

TEST(Shares, OfRecordedSpansAddUpToTheStep) {
  TraceRecorder recorder(1);
  {
    const TraceScope on(&recorder);
    const Span step(SpanKind::other, "step");
    for (int i = 0; i < 1000; ++i) {
      const Span product(SpanKind::gemm, "product");
      const Span wait(SpanKind::waiting, "wait");
    }
  }
  const auto alone = make_self_communicator();

  EXPECT_NEAR(sum_of(shares_of(recorder.own_times(), *alone)), 1, 1e-12);
}

}  // namespace
}  // namespace lamina
