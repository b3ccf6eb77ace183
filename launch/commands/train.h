// lamina train: from its arguments to a configuration, and on to the training loop.
#pragma once

#include <string>
#include <vector>

#include "launch/configuration.h"
#include "launch/flags.h"
#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina {

class TrainCommand {
 public:
  /// Gives `command` a flag for each setting.
  explicit TrainCommand(CLI::App& command);

  /// What the parsed arguments ask for: a flag wins over the file of --config, the file over the default. Not
  /// validated. Throws UserError naming the flag, or the file and its line.
  Configuration configuration();
  /// Collective.
  ExitCode run(Communicator& world);

 private:
  struct Source {
    std::string config;
    bool print_configuration = false;

    template <class Visitor>
    void visit(Visitor& v) {
      v("config", config, "TOML file with a line NAME = VALUE for each setting; a flag wins over the file");
      v("print-configuration", print_configuration, "print the configuration as such a file, and stop");
    }
  };

  Source source_;
  Configuration configuration_;
  Flags source_flags_, flags_;
};

/// The configuration of `lamina train ARGUMENTS`, as TrainCommand::configuration() has it.
Configuration configuration_from_arguments(const std::vector<std::string>& arguments);

}  // namespace lamina
