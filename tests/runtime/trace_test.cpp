#include "runtime/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;

std::int64_t of(const KindTimes& times, SpanKind kind) { return times[static_cast<std::size_t>(kind)]; }

std::int64_t sum_of(const KindTimes& times) {
  std::int64_t sum = 0;
  for (const std::int64_t time : times) sum += time;
  return sum;
}

TEST(Trace, RecordsNothingOutsideOfAScope) {
  TraceRecorder recorder(1, 10);

  { const Span before(SpanKind::gemm, "before"); }
  {
    const TraceScope on(&recorder);
    const Span inside(SpanKind::gemm, "inside");
  }
  { const Span after(SpanKind::gemm, "after"); }

  ASSERT_EQ(recorder.spans(0).size(), 1u);
  EXPECT_STREQ(recorder.spans(0)[0].name, "inside");
  EXPECT_EQ(TraceRecorder::current(), nullptr);
}

TEST(Trace, ASpanLiesInTheSpanAroundIt) {
  TraceRecorder recorder(1, 10);
  {
    const TraceScope on(&recorder);
    const Span outer(SpanKind::other, "outer");
    { const Span first(SpanKind::gemm, "first"); }
    { const Span second(SpanKind::exchange, "second"); }
  }

  const auto spans = recorder.spans(0);
  ASSERT_EQ(spans.size(), 3u);
  const SpanRecord &first = spans[0], &second = spans[1], &outer = spans[2];
  EXPECT_STREQ(outer.name, "outer");
  EXPECT_LE(outer.begin, first.begin);
  EXPECT_LE(first.begin, first.end);
  EXPECT_LE(first.end, second.begin);
  EXPECT_LE(second.end, outer.end);
}

TEST(Trace, EveryMomentCountsOnceAsTheInnermostKind) {
  TraceRecorder recorder(1, 10);
  {
    const TraceScope on(&recorder);
    const Span step(SpanKind::other, "step");
    {
      const Span exchange(SpanKind::exchange, "all_reduce");
      const Span wait(SpanKind::waiting, "wait");
      std::this_thread::sleep_for(20ms);
    }
    const Span product(SpanKind::gemm, "product");
    std::this_thread::sleep_for(10ms);
  }

  const KindTimes& times = recorder.own_times();
  const SpanRecord& step = recorder.spans(0).back();
  EXPECT_EQ(sum_of(times), step.end - step.begin);
  EXPECT_GE(of(times, SpanKind::waiting), 20'000'000);
  EXPECT_GE(of(times, SpanKind::gemm), 10'000'000);
  EXPECT_EQ(of(times, SpanKind::pointwise), 0);
}

TEST(Trace, SpansWithoutRoomAreCountedNotKept) {
  TraceRecorder recorder(1, 2);
  {
    const TraceScope on(&recorder);
    for (int i = 0; i < 5; ++i) const Span span(SpanKind::gemm, "product");
  }

  EXPECT_EQ(recorder.spans(0).size(), 2u);
  EXPECT_EQ(recorder.dropped(), 3);
  EXPECT_GT(of(recorder.own_times(), SpanKind::gemm), 0) << "times need no room";

  recorder.clear();
  EXPECT_TRUE(recorder.spans(0).empty());
  EXPECT_EQ(recorder.dropped(), 0);
  EXPECT_EQ(sum_of(recorder.own_times()), 0);
}

TEST(Trace, ScopesNestAndCanTurnItOff) {
  TraceRecorder outer(1, 10), inner(1, 10);
  {
    const TraceScope on(&outer);
    {
      const TraceScope other(&inner);
      const Span span(SpanKind::gemm, "inner");
    }
    {
      const TraceScope off(nullptr);
      const Span span(SpanKind::gemm, "nobody's");
    }
    {
      const TraceScope too_many(&outer, 7);
      const Span span(SpanKind::gemm, "nobody's");
    }
    const Span span(SpanKind::gemm, "outer");
  }

  ASSERT_EQ(outer.spans(0).size(), 1u);
  EXPECT_STREQ(outer.spans(0)[0].name, "outer");
  ASSERT_EQ(inner.spans(0).size(), 1u);
  EXPECT_STREQ(inner.spans(0)[0].name, "inner");
}

TEST(Trace, CollectivesOfThreadRanksAreKeptApart) {
  constexpr int kRanks = 3;
  run_on_threads(kRanks, [](Communicator& world) {
    TraceRecorder recorder(1, 10);
    double value = world.rank();
    {
      const TraceScope on(&recorder);
      if (world.rank() == 0) std::this_thread::sleep_for(10ms);
      world.all_reduce(std::span(&value, 1));
      if (world.rank() == 1) {
        const Span own(SpanKind::gemm, "own");
      }
    }
    std::vector<std::string> names;
    for (const SpanRecord& span : recorder.spans(0))
      if (span.kind != SpanKind::waiting) names.emplace_back(span.name);
    const std::vector<std::string> one{"all_reduce", "own"}, others{"all_reduce"};
    EXPECT_EQ(names, world.rank() == 1 ? one : others);
    if (world.rank() == 0) return;  // who comes last may not have to wait
    EXPECT_STREQ(recorder.spans(0).front().name, "wait for peers");
    EXPECT_GT(of(recorder.own_times(), SpanKind::waiting), 5'000'000);
  });
}

}  // namespace
}  // namespace lamina
