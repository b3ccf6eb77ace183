#include "launch/step_trace/chrome_trace.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace lamina {
namespace {

using Json = nlohmann::ordered_json;

Json name_event(const char* what, int rank, std::size_t thread, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

double microseconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

}  // namespace

std::string chrome_events(const TraceRecorder& recorder, const TracePlace& place) {
  std::string text =
      name_event("process_name", place.rank, 0, fmt::format("rank {} on {}", place.rank, place.host)).dump();
  const auto add = [&](const Json& event) { text += ",\n" + event.dump(); };
  for (std::size_t thread = 0; thread < recorder.threads(); ++thread) {
    add(name_event("thread_name", place.rank, thread,
                   thread == 0 ? std::string("rank") : fmt::format("worker {}", thread)));
    for (const SpanRecord& span : recorder.spans(thread))
      add({{"name", span.name},
           {"cat", name_of(span.kind)},
           {"ph", "X"},
           {"ts", microseconds(span.begin - place.origin)},
           {"dur", microseconds(span.end - span.begin)},
           {"pid", place.rank},
           {"tid", thread}});
  }
  return text;
}

std::string chrome_trace(const std::vector<std::string>& events) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  for (const std::string& of_rank : events) text += (&of_rank == &events.front() ? "\n" : ",\n") + of_rank;
  return text + "\n]}\n";
}

}  // namespace lamina
