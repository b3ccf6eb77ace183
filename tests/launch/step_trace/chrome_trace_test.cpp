#include "launch/step_trace/chrome_trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/cpu/parallel.h"

namespace lamina {
namespace {

using Json = nlohmann::json;

/// A step of two spans on the rank's thread, and some on its workers.
void record(TraceRecorder& recorder) {
  const TraceScope on(&recorder);
  const Span step(SpanKind::other, "step");
  { const Span product(SpanKind::gemm, "a \"product\""); }
  const Span cell(SpanKind::pointwise, "cell");
  parallel_for(static_cast<int>(recorder.threads()), 20,
               [](std::size_t) { const Span item(SpanKind::pointwise, "item"); });
}

Json events_of(const std::string& text) { return Json::parse(text).at("traceEvents"); }

TEST(ChromeTrace, IsWellFormed) {
  TraceRecorder recorder(2, 100);
  record(recorder);

  const Json trace =
      Json::parse(chrome_trace({chrome_events(recorder, {0, "a", 0}), chrome_events(recorder, {1, "b", 0})}));

  std::map<int, int> spans, names;
  for (const Json& event : trace.at("traceEvents")) {
    const int rank = event.at("pid");
    if (event.at("ph") == "M") {
      ++names[rank];
      continue;
    }
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_TRUE(event.at("name").is_string() && event.at("cat").is_string());
    EXPECT_GE(event.at("dur"), 0);
    EXPECT_LT(event.at("tid"), 2);
    ++spans[rank];
  }
  EXPECT_EQ(names, (std::map<int, int>{{0, 3}, {1, 3}}));  // the process and two threads
  const auto kept = static_cast<int>(recorder.spans(0).size() + recorder.spans(1).size());
  EXPECT_EQ(kept, 24) << "step, product, cell, wait for threads and 20 items";
  EXPECT_EQ(spans, (std::map<int, int>{{0, kept}, {1, kept}}));
}

TEST(ChromeTrace, SpansOfAThreadAreNested) {
  TraceRecorder recorder(3, 100);
  record(recorder);

  const Json events =
      events_of(chrome_trace({chrome_events(recorder, {0, "a", recorder.spans(0).back().begin})}));

  std::map<int, std::vector<std::pair<double, double>>> by_thread;
  for (const Json& event : events)
    if (event.at("ph") == "X") {
      const double begin = event.at("ts"), duration = event.at("dur");
      by_thread[event.at("tid")].emplace_back(begin, begin + duration);
    }
  constexpr double kRounding = 2e-3;  // microseconds
  for (const auto& [thread, spans] : by_thread)
    for (const auto& a : spans)
      for (const auto& b : spans) {
        const bool apart = a.second <= b.first + kRounding || b.second <= a.first + kRounding;
        const bool inside = a.first <= b.first + kRounding && b.second <= a.second + kRounding;
        const bool around = b.first <= a.first + kRounding && a.second <= b.second + kRounding;
        EXPECT_TRUE(apart || inside || around) << "thread " << thread;
      }
  EXPECT_EQ(by_thread.at(0).back().first, 0) << "the step begins at the origin";
}

}  // namespace
}  // namespace lamina
