// Settings as command-line flags, on CLI11.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/setting.h"

namespace CLI {
class App;
class Formatter;
class Option;
}  // namespace CLI

namespace lamina {

/// The flags of one command that set fields: --name VALUE, or --name and --no-name for a bool. Fields change
/// only in apply(), so that a file can be read between parsing and applying.
class Flags {
 public:
  explicit Flags(CLI::App& command) : command_(command) {}

  /// Adds a flag for each setting, under the heading `group` of the help.
  void add(const std::string& group, std::vector<Setting> settings);
  /// Puts the values that were given into their fields. Throws UserError naming the flag.
  void apply() const;

 private:
  struct Flag {
    Setting setting;
    CLI::Option* option;
  };
  CLI::App& command_;
  std::vector<Flag> flags_;
};

/// How help is set: one flag per line with its values, its meaning and its default.
std::shared_ptr<CLI::Formatter> help_format();

/// Parses `arguments` (without the program's name) and returns the command that they name, innermost. Throws
/// UserError on what `app` does not know or what lacks a value, with the nearest known name. CLI::CallForHelp
/// and CLI::CallForVersion pass.
const CLI::App& parse_arguments(CLI::App& app, const std::vector<std::string>& arguments);

/// Throws UserError: `app` does nothing by itself, only its commands do.
[[noreturn]] void refuse_missing_command(const CLI::App& app);

}  // namespace lamina
