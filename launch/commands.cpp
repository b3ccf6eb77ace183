#include "launch/commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>

#include "launch/commands/action.h"
#include "launch/commands/benchmark.h"
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

constexpr const char* kJsonHelp = "one JSON object on one line";

/// What a command for one rank does on rank 0; the others have nothing to do.
Action on_root(std::function<void()> work) {
  return [work = std::move(work)](Communicator& world) {
    if (world.rank() == 0) work();
    return ExitCode::done;
  };
}

/// `work` of a command that has a switch, whose value is in `field` by then.
std::function<void()> with_switch(CLI::App& command, const char* name, const char* help, bool& field,
                                  std::function<void()> work) {
  const auto flags = std::make_shared<Flags>(command);
  flags->add("Settings", {{name, help, {}, &field}});
  return [flags, work = std::move(work)] {
    flags->apply();
    work();
  };
}

class Program {
 public:
  Program();
  ExitCode run(const std::vector<std::string>& arguments, Communicator& world);

 private:
  void add_train();
  void add_checkpoint();
  void add_info();

  CLI::App app_{
      "Trains layer-normalized recurrent networks over many processes, with the same bits on every grid.",
      "lamina"};
  Actions actions_;
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
  add_command(app_, "evaluate", "how well a trained model predicts a text", actions_, &evaluate);
  add_command(app_, "generate", "text from a trained model", actions_, &generate);
  add_checkpoint();
  add_benchmarks(app_, actions_);
  add_info();
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
  actions_[&inspect] = on_root(
      with_switch(inspect, "json", kJsonHelp, *json, [file, json] { inspect_checkpoint(*file, *json); }));

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
  actions_[&exporting] =
      on_root(with_switch(exporting, "overwrite", "replace the output if it exists", settings->overwrite,
                          [settings] { export_checkpoint(*settings); }));
}

void Program::add_info() {
  CLI::App& info = add_command(app_, "info", "what this build has and what it runs on");
  const auto json = std::make_shared<bool>(false);
  actions_[&info] = on_root(with_switch(info, "json", kJsonHelp, *json, [json] { print_info(*json); }));
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
  const auto begins_with = [&](std::initializer_list<const char*> words) {
    return arguments.size() >= words.size() && std::equal(words.begin(), words.end(), arguments.begin());
  };
  for (const auto& [name, is_asked_for] : {std::pair{"launch", begins_with({"launch"})},
                                           {"benchmark scaling", begins_with({"benchmark", "scaling"})}})
    require(!is_asked_for,  // else main() has run it
            fmt::format("lamina {} starts mpirun itself: start it without mpirun", name));
  return Program().run(arguments, world);
}

}  // namespace lamina
