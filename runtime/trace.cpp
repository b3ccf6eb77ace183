#include "runtime/trace.h"

#include <chrono>

#include "runtime/error.h"

namespace lamina {
namespace {

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

const char* name_of(SpanKind kind) {
  constexpr std::array<const char*, kSpanKinds> names{"gemm",  "pointwise", "exchange", "waiting",
                                                      "input", "optimizer", "other"};
  return names.at(static_cast<std::size_t>(kind));
}

void Span::open(SpanKind kind, const char* name) {
  kind_ = kind;
  name_ = name;
  of_children_ = 0;
  parent_ = trace_->innermost;
  trace_->innermost = this;
  begin_ = now();
}

void Span::close() {
  const std::int64_t end = now();
  trace_->innermost = parent_;
  trace_->own_times[static_cast<std::size_t>(kind_)] += end - begin_ - of_children_;
  if (parent_ != nullptr) parent_->of_children_ += end - begin_;
  if (trace_->spans.size() < trace_->spans.capacity())
    trace_->spans.push_back({begin_, end, name_, kind_});
  else
    ++trace_->dropped;
}

TraceRecorder::TraceRecorder(int threads, std::size_t capacity)
    : threads_(static_cast<std::size_t>(threads)) {
  check(threads >= 1, "a rank has at least one thread to record");
  for (ThreadTrace& thread : threads_) {
    thread.recorder = this;
    thread.spans.reserve(capacity);
  }
}

std::int64_t TraceRecorder::dropped() const {
  std::int64_t sum = 0;
  for (const ThreadTrace& thread : threads_) sum += thread.dropped;
  return sum;
}

void TraceRecorder::clear() {
  for (ThreadTrace& thread : threads_) {
    check(thread.innermost == nullptr, "a trace is cleared inside a span");
    thread.own_times = {};
    thread.spans.clear();
    thread.dropped = 0;
  }
}

TraceScope::TraceScope(TraceRecorder* recorder, std::size_t thread) {
  const bool records = recorder != nullptr && thread < recorder->threads();
  trace::current = records ? &recorder->threads_[thread] : nullptr;
}

}  // namespace lamina
