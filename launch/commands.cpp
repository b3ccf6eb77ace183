#include "launch/commands.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <memory>

#include "launch/commands/benchmark.h"
#include "launch/commands/benchmark/exchange.h"
#include "launch/commands/checkpoint.h"
#include "launch/commands/evaluate.h"
#include "launch/commands/generate.h"
#include "launch/commands/info.h"
#include "launch/commands/output.h"
#include "launch/commands/train.h"
#include "launch/flags.h"
#include "launch/version.h"

namespace lamina {
namespace {

using Action = std::function<ExitCode(Communicator& world)>;

/// What a command for one rank does on rank 0; the others have nothing to do.
Action on_root(std::function<void()> work) {
  return [work = std::move(work)](Communicator& world) {
    if (world.rank() == 0) work();
    return ExitCode::done;
  };
}

class Program {
 public:
  Program();
  ExitCode run(const std::vector<std::string>& arguments, Communicator& world);

 private:
  CLI::App& add_command(CLI::App& parent, const char* name, const char* help);
  void add_train();
  void add_checkpoint();
  void add_info();
  /// A command whose flags are those of `Settings`, and which is `body`.
  template <class Settings>
  void add(const char* name, const char* help, void (*body)(const Settings&, Communicator&)) {
    add(app_, name, help, body);
  }
  template <class Settings>
  void add(CLI::App& parent, const char* name, const char* help,
           void (*body)(const Settings&, Communicator&));

  CLI::App app_{
      "Trains layer-normalized recurrent networks over many processes, with the same bits on every grid.",
      "lamina"};
  std::map<const CLI::App*, Action> actions_;
};

Program::Program() {
  app_.formatter(help_format());
  app_.set_help_flag("--help,-h", "show this help");
  app_.set_version_flag("--version", "lamina " + version(), "show the version");
  app_.footer(
      "Start it with mpirun to use several processes: mpirun -n 4 lamina train --data text.txt ...\n"
      "See lamina COMMAND --help for the flags of a command.");
  add_train();
  add_command(app_, "launch", "train under a supervisor that restarts after failures");
  add<EvaluateSettings>("evaluate", "how well a trained model predicts a text", &evaluate);
  add<GenerateSettings>("generate", "text from a trained model", &generate);
  add_checkpoint();
  CLI::App& benchmark = add_command(app_, "benchmark", "measure this machine");
  add<CheckpointBenchmarkSettings>(benchmark, "checkpoint", "rates of writing and reading checkpoints",
                                   &benchmark_checkpoint);
  add<ExchangeBenchmarkSettings>(benchmark, "exchange", "times of the collectives, beside the library's own",
                                 &benchmark_exchange);
  add_info();
}

CLI::App& Program::add_command(CLI::App& parent, const char* name, const char* help) {
  CLI::App& command = *parent.add_subcommand(name, help);
  command.footer("")->group("Commands");
  return command;
}

template <class Settings>
void Program::add(CLI::App& parent, const char* name, const char* help,
                  void (*body)(const Settings&, Communicator&)) {
  CLI::App& command = add_command(parent, name, help);
  const auto settings = std::make_shared<Settings>();
  const auto flags = std::make_shared<Flags>(command);
  flags->add("Settings", settings_of(*settings));
  actions_[&command] = [settings, flags, body](Communicator& world) {
    flags->apply();
    body(*settings, world);
    return ExitCode::done;
  };
}

void Program::add_train() {
  CLI::App& command = add_command(app_, "train", "train a model");
  const auto train = std::make_shared<TrainCommand>(command);
  actions_[&command] = [train](Communicator& world) { return train->run(world); };
}

void Program::add_checkpoint() {
  CLI::App& checkpoint = add_command(app_, "checkpoint", "look into checkpoints");

  CLI::App& inspect = add_command(checkpoint, "inspect", "show what a checkpoint holds");
  const auto file = std::make_shared<std::string>();
  const auto json = std::make_shared<bool>(false);
  inspect.add_option("checkpoint", *file, "checkpoint file, or a folder of them (its newest)")->required();
  inspect.add_flag("--json", *json, "one JSON object on one line");
  actions_[&inspect] = on_root([file, json] { inspect_checkpoint(*file, *json); });

  CLI::App& verify = add_command(checkpoint, "verify", "check every digest of checkpoints");
  const auto files = std::make_shared<std::vector<std::string>>();
  verify.add_option("checkpoint", *files, "checkpoint files, or folders of them")->required();
  actions_[&verify] = on_root([files] { verify_checkpoints(*files); });

  CLI::App& exporting = add_command(checkpoint, "export", "write tensors to a file for NumPy");
  const auto settings = std::make_shared<ExportSettings>();
  exporting
      .add_option("checkpoint", settings->checkpoint, "checkpoint file, or a folder of them (its newest)")
      ->required();
  exporting.add_option("--tensor", settings->tensor,
                       "path of a tensor, or of a group of them; without it, all");
  exporting
      .add_option("--output", settings->output, "file to write: X.npy for one tensor, X.npz for any number")
      ->required();
  exporting.add_flag("--overwrite", settings->overwrite, "replace the output if it exists");
  actions_[&exporting] = on_root([settings] { export_checkpoint(*settings); });
}

void Program::add_info() {
  CLI::App& info = add_command(app_, "info", "what this build has and what it runs on");
  const auto json = std::make_shared<bool>(false);
  info.add_flag("--json", *json, "one JSON object on one line");
  actions_[&info] = on_root([json] { print_info(*json); });
}

ExitCode Program::run(const std::vector<std::string>& arguments, Communicator& world) {
  const bool is_root = world.rank() == 0;
  try {
    const CLI::App& command = parse_arguments(app_, arguments);
    const auto action = actions_.find(&command);
    if (action == actions_.end()) refuse_missing_command(command);
    return action->second(world);
  } catch (const CLI::CallForVersion& request) {
    if (is_root) print(request.what() + std::string("\n"));
  } catch (const CLI::Success&) {
    if (is_root) print(app_.help());
  }
  return ExitCode::done;
}

}  // namespace

ExitCode run_command(const std::vector<std::string>& arguments, Communicator& world) {
  const bool in_a_job = !arguments.empty() && arguments.front() == "launch";  // else main() has run it
  require(!in_a_job, "lamina launch starts mpirun itself: start it without mpirun");
  return Program().run(arguments, world);
}

}  // namespace lamina
