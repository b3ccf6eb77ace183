// Where a rank's time goes: spans of the program, nested, on each thread of the rank.
//
//   TraceRecorder recorder(threads, capacity);
//   {
//     const TraceScope on(&recorder);          // this thread records, and so do the workers it asks for help
//     const Span step(SpanKind::other, "step");
//     …                                        // spans in here are counted and kept
//   }
//
// Off, a span costs one test of a thread-local pointer; on, two readings of the clock and a record in memory
// taken beforehand. What records belongs to a scope on the stack of a thread, so ranks that are threads do
// not meet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lamina {

/// What a span's own time, without that of the spans in it, counts as.
enum class SpanKind : std::uint8_t { gemm, pointwise, exchange, waiting, input, optimizer, other };
inline constexpr std::size_t kSpanKinds = 7;
/// "gemm", "pointwise", …
const char* name_of(SpanKind kind);

struct SpanRecord {
  std::int64_t begin = 0, end = 0;  ///< nanoseconds of this host's steady clock
  const char* name = nullptr;
  SpanKind kind = SpanKind::other;
};

/// Nanoseconds by kind.
using KindTimes = std::array<std::int64_t, kSpanKinds>;

class Span;
class TraceRecorder;

/// What one thread records.
struct ThreadTrace {
  TraceRecorder* recorder = nullptr;
  Span* innermost = nullptr;  ///< open span
  KindTimes own_times{};      ///< of spans that ended
  std::vector<SpanRecord> spans;
  std::int64_t dropped = 0;  ///< spans that found no room
};

namespace trace {
/// Null: this thread records nothing.
inline constinit thread_local ThreadTrace* current = nullptr;
}  // namespace trace

/// From its beginning to its end. `name` must live as long as the records are used: a literal, in general.
class Span {
 public:
  Span(SpanKind kind, const char* name) : trace_(trace::current) {
    if (trace_ != nullptr) [[unlikely]]
      open(kind, name);
  }
  ~Span() {
    if (trace_ != nullptr) [[unlikely]]
      close();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void open(SpanKind kind, const char* name);
  void close();

  ThreadTrace* trace_;
  Span* parent_;
  const char* name_;
  std::int64_t begin_, of_children_;
  SpanKind kind_;
};

/// The records of one rank.
class TraceRecorder {
 public:
  /// `threads` of the rank; room for `capacity` spans of each, of which 0 keeps times by kind only.
  explicit TraceRecorder(int threads, std::size_t capacity = 0);
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  /// The recorder of the calling thread's scope, or null.
  static TraceRecorder* current() { return trace::current == nullptr ? nullptr : trace::current->recorder; }

  std::size_t threads() const { return threads_.size(); }
  /// Thread 0 is the rank's own; spans in order of their ends.
  std::span<const SpanRecord> spans(std::size_t thread) const { return threads_[thread].spans; }
  /// Of the rank's own thread: the times of its outermost spans, each moment counted once, as the kind of the
  /// innermost span.
  const KindTimes& own_times() const { return threads_.front().own_times; }
  /// Spans of all threads that found no room.
  std::int64_t dropped() const;
  /// Forgets all; outside of any scope.
  void clear();

 private:
  friend class TraceScope;
  std::vector<ThreadTrace> threads_;
};

/// For as long as it lives, the calling thread records as thread `thread` of `recorder`; null, or a thread
/// that it has not: not at all.
class TraceScope {
 public:
  explicit TraceScope(TraceRecorder* recorder, std::size_t thread = 0);
  ~TraceScope() { trace::current = before_; }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  ThreadTrace* before_ = trace::current;
};

}  // namespace lamina
