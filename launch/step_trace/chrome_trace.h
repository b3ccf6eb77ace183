// Spans in the Trace Event Format, which chrome://tracing and ui.perfetto.dev show.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/trace.h"

namespace lamina {

/// Where a rank's records belong in the file.
struct TracePlace {
  int rank = 0;             ///< process in the timeline
  std::string host;         ///< for people
  std::int64_t origin = 0;  ///< of the rank's clock, in nanoseconds: time 0 of the timeline
};

/// The events of one rank, one JSON object a line, with commas between: metadata that names the rank and its
/// threads, and a complete event (times in microseconds) for each span.
std::string chrome_events(const TraceRecorder& recorder, const TracePlace& place);

/// The whole file, from the events of all ranks.
std::string chrome_trace(const std::vector<std::string>& events);

}  // namespace lamina
