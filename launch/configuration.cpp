#include "launch/configuration.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "launch/setting.h"
#include "launch/toml.h"
#include "runtime/error.h"

namespace lamina {
namespace {

/// A share that may be nothing but not the whole.
void below_one(const char* name, double value) {
  require(value >= 0 && value < 1, fmt::format("--{} must be at least 0 and below 1, not {}", name, value));
}

void validate_data(const DataSettings& data) {
  require(!data.data.empty(), "--data is missing: give the text to train on, a file in UTF-8");
  below_one("validation-fraction", data.validation_fraction);
}

void validate_model(const ModelSettings& model, int unit_blocks) {
  at_least("layers", model.layers, 1);
  at_most("layers", model.layers, kMostLayers);
  below_one("dropout", model.dropout);
  at_least("unit-blocks", unit_blocks, 1);
  for (const auto& [name, width] : {std::pair{"hidden", model.hidden}, {"embedding", model.embedding}}) {
    at_least(name, width, 1);
    at_most(name, width, kMostUnits);
    require(width % unit_blocks == 0,
            fmt::format("--{} must be a multiple of --unit-blocks ({}), not {}", name, unit_blocks, width));
  }
}

void validate_run(const RunSettings& run) {
  validate_step(run.batch, run.time_steps);
  at_least("steps", run.steps, 0);
  at_least("seed", run.seed, 0);
  at_least("threads", run.threads, 0);
  at_least("log-every", run.log_every, 1);
  at_least("validate-every", run.validate_every, 0);
  at_least("trace-step", run.trace_step, 0);
  require(run.trace_step == 0 || !run.trace.empty(),
          "--trace-step needs --trace: give the file of the timeline");
  at_least("consistency-every", run.consistency_every, 0);
  at_least("collective-timeout", run.collective_timeout, 0);
}

void validate_checkpoint(const CheckpointSettings& settings, const RunSettings& run) {
  at_least("checkpoint-every", settings.checkpoint_every, 0);
  at_least("keep", settings.keep, 0);
  at_least("keep-every", settings.keep_every, 0);
  at_least("checkpoint-timeout", settings.checkpoint_timeout, 0);
  at_least("max-checkpoint-failures", settings.max_checkpoint_failures, 0);
  require(
      !settings.resume || !settings.overwrite,
      "--resume and --overwrite contradict each other: give --resume to go on with the run in the folder, "
      "or --overwrite to replace it");
  if (!settings.checkpoint.empty()) return;
  for (const auto& [name, is_set] : {std::pair{"resume", settings.resume},
                                     {"overwrite", settings.overwrite},
                                     {"keep-best", settings.keep_best},
                                     {"keep-every", settings.keep_every > 0},
                                     {"non-finite rollback", run.non_finite == "rollback"},
                                     {"checkpoint-every", settings.checkpoint_every > 0}})
    require(!is_set, fmt::format("--{} needs --checkpoint: give the folder of the checkpoints", name));
}

/// Whether a TOML value of `kind` may stand for a field.
struct Fits {
  TomlEntry::Kind kind;

  bool operator()(const std::string*) const { return kind == TomlEntry::Kind::string; }
  bool operator()(const bool*) const { return kind == TomlEntry::Kind::boolean; }
  bool operator()(const double*) const {
    return kind == TomlEntry::Kind::floating || kind == TomlEntry::Kind::integer;
  }
  bool operator()(const int*) const { return kind == TomlEntry::Kind::integer; }
  bool operator()(const std::int64_t*) const { return kind == TomlEntry::Kind::integer; }
};

struct Expectation {
  const char* operator()(const std::string*) const { return "a string in quotes"; }
  const char* operator()(const bool*) const { return "true or false"; }
  const char* operator()(const double*) const { return "a number"; }
  const char* operator()(const int*) const { return "a whole number"; }
  const char* operator()(const std::int64_t*) const { return "a whole number"; }
};

[[noreturn]] void refuse_unknown(const TomlEntry& entry, const std::string& place,
                                 const std::vector<Setting>& settings) {
  std::vector<std::string> names;
  for (const Setting& setting : settings) names.push_back(setting.name);
  const std::string nearest = closest(entry.key, names);
  throw UserError(fmt::format("{}: there is no setting '{}'{}; see lamina train --help", place, entry.key,
                              nearest.empty() ? "" : fmt::format(", did you mean '{}'?", nearest)));
}

void assign_entry(const TomlEntry& entry, const std::string& source, const std::vector<Setting>& settings) {
  const std::string place = fmt::format("{}, line {}", source, entry.line);
  const auto setting =
      std::find_if(settings.begin(), settings.end(), [&](const Setting& s) { return s.name == entry.key; });
  if (setting == settings.end()) refuse_unknown(entry, place, settings);
  const std::string subject = fmt::format("{}: {}", place, entry.key);
  require(std::visit(Fits{entry.kind}, setting->field),
          fmt::format("{} must be {}, not {}", subject, std::visit(Expectation{}, setting->field),
                      entry.kind == TomlEntry::Kind::string ? toml_quoted(entry.text) : entry.text));
  assign(*setting, entry.text, subject);
}

std::string toml_value(const Setting& setting) {
  const std::string text = text_of(setting);
  if (std::holds_alternative<std::string*>(setting.field)) return toml_quoted(text);
  const bool looks_whole = text.find_first_of(".en") == std::string::npos;
  return std::holds_alternative<double*>(setting.field) && looks_whole ? text + ".0" : text;
}

}  // namespace

void Configuration::validate() const {
  validate_data(data);
  require_apart(run.outputs(), {{"data", data.data}});
  validate_model(model, grid.unit_blocks);
  optimizer.validate();
  at_least("model-parallel", grid.model_parallel, 1);
  at_least("lane-groups", grid.lane_groups, 0);
  at_least("passes", grid.passes, 1);
  validate_run(run);
  validate_checkpoint(checkpoint, run);
}

void validate_step(int batch, int time_steps, const char* steps_name) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  at_least("batch", batch, 1);
  at_most("batch", batch, kMostLanes);
  at_least(steps_name, time_steps, 1);
  at_most(steps_name, time_steps, kMostTimeSteps);
  const std::int64_t characters = std::int64_t{batch} * time_steps;
  require(characters <= kMost,
          fmt::format("--batch {} with --{} {} makes {} characters a step and at most {} are allowed: give "
                      "less of either",
                      batch, steps_name, time_steps, characters, kMost));
}

std::string to_toml(Configuration configuration) {
  std::string toml;
  for (const Setting& setting : settings_of(configuration))
    toml += fmt::format("{} = {}\n", setting.name, toml_value(setting));
  return toml;
}

Configuration from_toml(const std::string& toml, const std::string& source) {
  Configuration configuration;
  const std::vector<Setting> settings = settings_of(configuration);
  for (const TomlEntry& entry : read_toml(toml, source)) assign_entry(entry, source, settings);
  return configuration;
}

}  // namespace lamina
