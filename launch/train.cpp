#include "launch/train.h"

#include <fmt/format.h>

#include "launch/agreement.h"
#include "launch/training.h"
#include "runtime/error.h"

namespace lamina {
namespace {

/// The folder of --checkpoint, ready to be written. Collective.
std::optional<CheckpointFolder> open_folder(const CheckpointSettings& settings, Communicator& world) {
  if (settings.checkpoint.empty()) return std::nullopt;
  CheckpointFolder folder(settings.checkpoint);
  from_root(world, [&] {
    const std::size_t held = folder.list().size();
    if (held > 0 && !settings.resume && !settings.overwrite) {
      throw UserError(
          fmt::format("{} holds {} checkpoint{}: give --resume to go on, --overwrite to begin anew, or "
                      "another --checkpoint folder",
                      settings.checkpoint, held, held == 1 ? "" : "s"));
    }
    folder.prepare();
    return std::string();
  });
  if (settings.checkpoint_io == "mpi-io") probe_parallel_io(folder.path(), world);
  return folder;
}

}  // namespace

TrainingResult train(const Configuration& configuration, Communicator& world) {
  configuration.validate();
  const DeadlineScope deadline(world, std::chrono::seconds(configuration.run.collective_timeout));
  const Progress progress(world.rank() == 0);
  const auto folder = open_folder(configuration.checkpoint, world);
  std::optional<ResumePoint> point;
  if (configuration.checkpoint.resume) {
    point = find_resume_point(*folder, world, progress);
    if (!point) progress.note("no checkpoint to resume from: starting from step 0");
  }

  Training training(configuration, folder, point, progress, world);
  training.begin();

  const std::int64_t first = training.step() + 1, last = configuration.run.steps;
  if (point && first > last)
    progress.note(fmt::format("the run is at step {} already and --steps is {}: give more --steps to go on",
                              training.step(), last));
  const auto due = [&](std::int64_t every) { return every > 0 && training.step() % every == 0; };
  while (training.step() < last && !training.stops()) {
    if (!training.train_step()) continue;
    const bool at_end = training.step() == last;
    const bool checkpoint = at_end || training.stops() || due(configuration.checkpoint.checkpoint_every);
    const std::int64_t validate_every = configuration.run.validate_every;
    const bool validate = due(validate_every) || (validate_every == 0 && checkpoint);
    if (at_end || training.stops() || training.step() == first || due(configuration.run.log_every))
      training.report();
    if (at_end || (validate && !training.stops())) training.validate();
    if (due(configuration.run.consistency_every)) training.require_equal_replicas();
    if (checkpoint) training.save();
  }
  return training.end();
}

}  // namespace lamina
