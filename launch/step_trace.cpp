#include "launch/step_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "launch/agreement.h"
#include "launch/setting.h"
#include "launch/step_trace/chrome_trace.h"
#include "launch/step_trace/clock_offset.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

constexpr std::size_t kSpansOfThread = std::size_t{1} << 19;
constexpr std::int64_t kUsualStep = 3;  // by then memory is taken and primitives are made

/// Why `file` could not be opened or written; nothing where it could.
std::string write_file(const std::string& file, const std::string& text, std::ios::openmode mode) {
  errno = 0;
  std::ofstream out(file, std::ios::binary | mode);
  out << text;
  out.close();
  return out.fail() ? std::strerror(errno == 0 ? EIO : errno) : "";
}

}  // namespace

StepTrace::StepTrace(std::string file, std::int64_t step, std::int64_t first, std::int64_t last, int threads,
                     const Progress& progress, Communicator& world)
    : file_(std::move(file)),
      step_(step == 0 ? std::min(first + kUsualStep - 1, last) : step),
      progress_(progress),
      world_(world) {
  if (file_.empty()) return;
  require(step_ >= first && step_ <= last,
          fmt::format("--trace-step {} is none of the steps {} to {} of this start: give one of them", step_,
                      first, last));
  from_root(world_, [&] {
    const std::string trouble = write_file(file_, "", std::ios::app);  // which leaves an older trace
    require(trouble.empty(),
            fmt::format("the trace {} cannot be written: {}; give --trace a writable path", file_, trouble));
    return std::string();
  });
  recorder_.emplace(threads, kSpansOfThread);
}

void StepTrace::begin(std::int64_t step) {
  end();
  if (recorder_ && step == step_) recording_.emplace(*recorder_);
}

void StepTrace::end() {
  if (!recording_) return;
  recording_.reset();
  write();
  recorder_.reset();
}

void StepTrace::finish() {
  end();
  if (recorder_)
    progress_.warning(fmt::format("the run ends before step {}: its trace {} is not written", step_, file_));
}

void StepTrace::write() {
  const std::int64_t offset = offset_to_root(world_);
  const auto spans = recorder_->spans(0);
  std::int64_t origin = std::ranges::min_element(spans, {}, &SpanRecord::begin)->begin - offset;
  world_.all_reduce(std::span(&origin, 1), Reduction::min);
  const std::string own = chrome_events(*recorder_, {world_.rank(), host_name(), origin + offset});
  std::vector<std::string> events;
  for (int rank = 0; rank < world_.size(); ++rank) {
    std::string text = rank == world_.rank() ? own : "";
    world_.broadcast(text, rank);
    if (world_.rank() == 0) events.push_back(std::move(text));
  }
  std::int64_t dropped = recorder_->dropped();
  world_.all_reduce(std::span(&dropped, 1));
  if (world_.rank() != 0) return;
  const std::string trouble = write_file(file_, chrome_trace(events), std::ios::trunc);
  if (!trouble.empty())
    progress_.warning(fmt::format("the trace {} cannot be written: {}; training goes on", file_, trouble));
  else
    progress_.note(fmt::format("trace of step {} on {} ranks: {}", step_, world_.size(), file_));
  if (dropped > 0)
    progress_.warning(fmt::format("the trace lacks {} spans, for which there was no room", dropped));
}

}  // namespace lamina
