#include "launch/commands/train.h"

#include <CLI/CLI.hpp>

#include "io/text.h"
#include "launch/commands/output.h"
#include "launch/output_files.h"
#include "launch/toml.h"
#include "launch/train.h"

namespace lamina {

TrainCommand::TrainCommand(CLI::App& command) : source_flags_(command), flags_(command) {
  flags_.add("Data", settings_of(configuration_.data));
  flags_.add("Model", settings_of(configuration_.model));
  flags_.add("Optimizer", settings_of(configuration_.optimizer));
  flags_.add("Grid", settings_of(configuration_.grid));
  flags_.add("Run", settings_of(configuration_.run));
  flags_.add("Checkpoints", settings_of(configuration_.checkpoint));
  source_flags_.add("Configuration", settings_of(source_));
}

Configuration TrainCommand::configuration() {
  source_flags_.apply();
  if (!source_.config.empty())
    configuration_ =
        from_toml(read_bytes(source_.config, kMaxTomlBytes, "a TOML file for --config"), source_.config);
  flags_.apply();
  return configuration_;
}

ExitCode TrainCommand::run(Communicator& world) {
  const Configuration wanted = configuration();
  if (source_.print_configuration) {
    if (world.rank() == 0) print(to_toml(wanted));
    return ExitCode::done;
  }
  require_apart(wanted.run.outputs(), {{"config", source_.config}});
  const TrainingResult result = train(wanted, world);
  if (!result.last_checkpoint_written) return ExitCode::checkpoint_not_written;
  return result.preempted ? ExitCode::preempted_and_saved : ExitCode::done;
}

Configuration configuration_from_arguments(const std::vector<std::string>& arguments) {
  CLI::App app("", "lamina train");
  TrainCommand command(app);
  parse_arguments(app, arguments);
  return command.configuration();
}

}  // namespace lamina
