#include "launch/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "runtime/error.h"

namespace lamina {
namespace {

/// What --help shows after the name of a flag: the choices, or what kind of value it takes.
std::string placeholder(const Setting& setting) {
  struct Kind {
    const char* operator()(const double*) const { return "X"; }
    const char* operator()(const bool*) const { return ""; }
    const char* operator()(const std::string*) const { return "TEXT"; }
    const char* operator()(const int*) const { return "N"; }
    const char* operator()(const std::int64_t*) const { return "N"; }
  };
  if (!setting.choices.empty()) return fmt::format("{}", fmt::join(setting.choices, "|"));
  return std::visit(Kind{}, setting.field);
}

/// Meaning and default.
std::string description(const Setting& setting) {
  const std::string value = text_of(setting);
  return value.empty() || value == "false" ? setting.help : fmt::format("{} [{}]", setting.help, value);
}

class HelpFormat : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    std::string help = CLI::Formatter::make_help(app, std::move(name), mode);
    for (std::size_t at; (at = help.find("\n\n\n")) != std::string::npos;) help.erase(at, 1);
    return help;
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    if (is_positional || option->get_fnames().empty())
      return CLI::Formatter::make_option_name(option, is_positional);
    return fmt::format("--{0}, --no-{0}", option->get_lnames().front());
  }
  std::string make_usage(const CLI::App* app, std::string name) const override {
    const bool has_commands = !app->get_subcommands([](const CLI::App*) { return true; }).empty();
    std::string usage =
        "Usage: " + (name.empty() ? app->get_name() : name) + (has_commands ? " COMMAND" : "");
    for (const CLI::Option* option :
         app->get_options([](const CLI::Option* o) { return o->get_positional(); }))
      usage += " " + option->get_name(true) + option->get_option_text();
    return usage + " [--flag VALUE ...]   (defaults in brackets)\n";
  }
};

/// The command that was parsed, innermost.
const CLI::App& innermost(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

/// "lamina train"
std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : full_name(*parent) + " " + command.get_name();
}

std::string see_help(const CLI::App& command) { return fmt::format("see {} --help", full_name(command)); }

/// All names by which the flags of `command` can be given, "--" included.
std::vector<std::string> flag_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_fnames())
      if (names.empty() || names.back() != "--" + name) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

[[noreturn]] void refuse_unknown(const CLI::App& command, const std::string& argument) {
  const std::string name = argument.substr(0, argument.find('='));
  const bool is_flag = name.starts_with('-');
  const std::vector<std::string> known = is_flag ? flag_names(command) : command_names(command);
  const std::string nearest = closest(name, known);
  const std::string hint = nearest.empty() ? "" : fmt::format("did you mean {}? ", nearest);
  const char* kind = is_flag ? "flag" : known.empty() ? "argument" : "command";
  throw UserError(
      fmt::format("{} has no {} '{}'; {}{}", full_name(command), kind, name, hint, see_help(command)));
}

/// A flag is no value for the flag before it: `--data --steps 5` lacks the name of the data.
void refuse_flags_as_values(const CLI::App& command) {
  const std::vector<std::string> names = flag_names(command);
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results())
      if (std::find(names.begin(), names.end(), value) != names.end())
        throw UserError(fmt::format("{} needs a value, not the flag {}", option->get_name(), value));
}

void parse_or_explain(CLI::App& app, std::vector<std::string> reversed) {
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string what = error.what();
    const std::string flag = what.substr(0, what.find_first_of(": "));
    throw UserError(fmt::format("{} needs a value; {}", flag, see_help(innermost(app))));
  } catch (const CLI::ParseError& error) {
    throw UserError(fmt::format("{}; {}", error.what(), see_help(innermost(app))));
  }
}

}  // namespace

void Flags::add(const std::string& group, std::vector<Setting> settings) {
  for (Setting& setting : settings) {
    const std::string name = "--" + setting.name;
    const bool is_switch = std::holds_alternative<bool*>(setting.field);
    const std::string help = description(setting);
    CLI::Option* option = is_switch ? command_.add_flag(name + ",!--no-" + setting.name, help)
                                    : command_.add_option(name, CLI::callback_t{}, help);
    option->group(group)->option_text(placeholder(setting));
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    flags_.push_back({std::move(setting), option});
  }
}

void Flags::apply() const {
  for (const auto& [setting, option] : flags_) {
    const std::vector<std::string>& values = option->results();
    const std::string subject = "--" + setting.name;
    if (values.size() > 1)
      throw UserError(fmt::format("{} is given {} times, with {}; give it once", subject, values.size(),
                                  fmt::join(values, " and ")));
    if (values.size() == 1) assign(setting, values.front(), subject);
  }
}

std::shared_ptr<CLI::Formatter> help_format() {
  const auto format = std::make_shared<HelpFormat>();
  format->column_width(42);
  format->label("Positionals", "Arguments");
  return format;
}

const CLI::App& parse_arguments(CLI::App& app, const std::vector<std::string>& arguments) {
  app.allow_extras()->require_subcommand(0, 1);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    command->allow_extras()->require_subcommand(0, 1);
    for (CLI::App* inner : command->get_subcommands([](const CLI::App*) { return true; }))
      inner->allow_extras();
  }
  parse_or_explain(app, {arguments.rbegin(), arguments.rend()});

  const CLI::App& command = innermost(app);
  refuse_flags_as_values(command);
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (!unknown.empty()) refuse_unknown(command, unknown.front());
  return command;
}

void refuse_missing_command(const CLI::App& app) {
  throw UserError(fmt::format("{} needs a command: {}; {}", full_name(app),
                              fmt::join(command_names(app), ", "), see_help(app)));
}

}  // namespace lamina
