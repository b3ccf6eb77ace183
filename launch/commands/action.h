// Commands of the program: how one is added to its parent, and what it does.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <memory>

#include "launch/flags.h"
#include "runtime/communicator.h"
#include "runtime/error.h"

namespace lamina {

using Action = std::function<ExitCode(Communicator& world)>;
using Actions = std::map<const CLI::App*, Action>;

/// A command below `parent`, without flags so far.
inline CLI::App& add_command(CLI::App& parent, const char* name, const char* help) {
  CLI::App& command = *parent.add_subcommand(name, help);
  command.footer("")->group("Commands");
  return command;
}

/// A command below `parent` whose flags are those of `Settings`, and which is `body`.
template <class Settings>
void add_command(CLI::App& parent, const char* name, const char* help, Actions& actions,
                 void (*body)(const Settings&, Communicator&)) {
  CLI::App& command = add_command(parent, name, help);
  const auto settings = std::make_shared<Settings>();
  const auto flags = std::make_shared<Flags>(command);
  flags->add("Settings", settings_of(*settings));
  actions[&command] = [settings, flags, body](Communicator& world) {
    flags->apply();
    body(*settings, world);
    return ExitCode::done;
  };
}

}  // namespace lamina
