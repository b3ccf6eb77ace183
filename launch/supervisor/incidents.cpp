#include "launch/supervisor/incidents.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/supervisor/watch.h"

namespace lamina {
namespace {

std::string record_of(const Incident& incident) {
  nlohmann::ordered_json record{{"time", fmt::format("{:%FT%T%z}", fmt::localtime(std::time(nullptr)))},
                                {"attempt", incident.attempt},
                                {"ranks", incident.ranks},
                                {"seconds", std::round(incident.seconds * 1000) / 1000},
                                {"what", incident.what},
                                {"step", nullptr},
                                {"next", incident.next}};
  if (incident.step) record["step"] = *incident.step;
  return record.dump() + '\n';
}

}  // namespace

void Incidents::report(const Incident& incident) {
  const std::string checkpoint =
      incident.step ? fmt::format("newest checkpoint: step {}", *incident.step) : "no checkpoint";
  const std::string what =
      fmt::format("attempt {} on {} rank{} ended after {:.1f} s: {}; {}", incident.attempt, incident.ranks,
                  incident.ranks == 1 ? "" : "s", incident.seconds, incident.what, checkpoint);
  say_at_supervisor(fmt::format("{}; {}", what, incident.next));
  lines_.push_back(fmt::format("{:%F %T}  {}", fmt::localtime(std::time(nullptr)), what));

  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  std::ofstream out(file_, std::ios::app | std::ios::binary);
  if (!(out << record_of(incident) << std::flush))
    say_at_supervisor(fmt::format("the incident cannot be written to {}", file_.string()));
}

void Incidents::list() const {
  if (lines_.size() < 2) return;  // one was just reported
  std::string text = fmt::format("lamina: {} incidents in this run:\n", lines_.size());
  for (const std::string& line : lines_) text += fmt::format("  {}\n", line);
  std::fputs(text.c_str(), stderr);  // where nobody reads it, the run goes on
}

}  // namespace lamina
