#include "launch/commands/launch.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "io/checkpoint.h"
#include "launch/commands/output.h"
#include "launch/commands/train.h"
#include "launch/flags.h"
#include "launch/setting.h"
#include "launch/supervisor/mpirun.h"
#include "launch/supervisor/supervisor.h"

namespace lamina {
namespace {

using Words = std::vector<std::string>;

constexpr const char* kFooter =
    "After -- comes the training: lamina launch --ranks 4 -- train --data text.txt --checkpoint runs/first "
    "...\n"
    "Each failure is reported and kept in incidents.jsonl in the checkpoint folder. SIGTERM, ^C or SIGUSR1 "
    "makes\n"
    "the ranks save and end (exit code 4); a second SIGTERM or ^C ends them at once.";

/// The settings in the words before "--".
LaunchSettings settings_in(CLI::App& app, const Words& words) {
  LaunchSettings settings;
  Flags flags(app);
  flags.add("Settings", settings_of(settings));
  parse_arguments(app, words);
  flags.apply();
  settings.validate();
  return settings;
}

/// What `words`, those after "--", train. Throws UserError on all that can be seen before it starts.
Configuration training_in(const Words& words) {
  require(!words.empty() && words.front() == "train",
          "lamina launch needs the training after --: lamina launch --ranks 4 -- train --data ...");
  try {
    Configuration configuration = configuration_from_arguments({words.begin() + 1, words.end()});
    configuration.validate();
    return configuration;
  } catch (const CLI::Success&) {
    throw UserError("lamina launch starts a training; for its flags see lamina train --help");
  }
}

void require_room(const CheckpointSettings& settings) {
  require(!settings.checkpoint.empty(),
          "lamina launch needs --checkpoint after train: without checkpoints nothing can be resumed");
  require(
      settings.resume || settings.overwrite || CheckpointFolder(settings.checkpoint).list().empty(),
      fmt::format("{} holds checkpoints: give --resume after train to go on, --overwrite to begin anew, or "
                  "another --checkpoint folder",
                  settings.checkpoint));
}

}  // namespace

bool asks_for_supervisor(const Words& arguments) {
  return !is_started_by_mpirun() && !arguments.empty() && arguments.front() == "launch";
}

int launch(const Words& arguments) {
  const auto middle = std::find(arguments.begin() + 1, arguments.end(), "--");
  const Words training(middle == arguments.end() ? middle : middle + 1, arguments.end());
  CLI::App app("train under a supervisor that starts mpirun, and starts it again after failures",
               "lamina launch");
  app.formatter(help_format())->footer(kFooter);
  app.set_help_flag("--help,-h", "show this help");
  try {
    LaunchSettings settings = settings_in(app, {arguments.begin() + 1, middle});
    const Configuration configuration = training_in(training);
    require_room(configuration.checkpoint);
    return Supervisor(std::move(settings), training, configuration).run();
  } catch (const CLI::Success&) {
    print(app.help());
    return 0;
  }
}

}  // namespace lamina
