#include "launch/resume.h"

#include <fmt/format.h>

#include "launch/agreement.h"
#include "runtime/error.h"

namespace lamina {
namespace {

bool is_whole(const std::filesystem::path& file) {
  try {
    verify_checkpoint(file);
    return true;
  } catch (const DamagedCheckpoint&) {
    return false;
  }
}

/// A run whose every checkpoint is damaged would begin anew, unattended: a person is to decide that.
void require_none_set_aside(const CheckpointFolder& folder) {
  const std::vector<std::filesystem::path> aside = folder.list_set_aside();
  if (aside.empty()) return;
  throw UserError(fmt::format(
      "{} holds no checkpoint to go on from, only damaged ones that were set aside, {} the newest: "
      "put a copy of one that is whole there, or give --overwrite to begin anew from step 0",
      folder.path().string(), aside.back().filename().string()));
}

}  // namespace

std::optional<ResumePoint> find_resume_point(const CheckpointFolder& folder, Communicator& world,
                                             const Progress& progress) {
  for (;;) {
    const std::string newest = from_root(world, [&] {
      const auto files = folder.list();
      if (files.empty()) require_none_set_aside(folder);
      return files.empty() ? std::string() : files.back().string();
    });
    if (newest.empty()) return std::nullopt;
    try {
      ResumePoint point{newest, {}};
      on_every_rank(world, [&] { point.record = read_record(newest); });
      return point;
    } catch (const DamagedCheckpoint& damage) {
      set_aside_damaged(newest, damage.what(), world, progress);
    }
  }
}

void set_aside_damaged(const std::filesystem::path& file, const std::string& damage, Communicator& world,
                       const Progress& progress) {
  world.barrier();  // nobody reads it any more
  const std::string aside = from_root(world, [&] {
    if (is_whole(file)) {
      throw UserError(
          fmt::format("{}; but rank 0 finds every bit of it right, so the fault is with the host or the "
                      "mount of the rank that read it: nothing is set aside, --resume elsewhere",
                      damage),
          ExitCode::damaged_checkpoint);
    }
    return CheckpointFolder::set_aside(file).string();
  });
  progress.warning(fmt::format("{}; kept as {}, going on with an older checkpoint", damage, aside));
}

void require_same_run(const Configuration& configuration, const Tiling& tiling, const Vocabulary& vocabulary,
                      const ResumePoint& point) {
  const std::string file = point.file.string();
  const auto require = [&](const char* flag, const auto& now, const auto& then) {
    if (now == then) return;
    throw UserError(
        fmt::format("--{} is {}, but the run in {} has {}: give --{} {} to go on with that run, or "
                    "another --checkpoint folder for a new one",
                    flag, now, file, then, flag, then));
  };
  const Configuration then = from_toml(point.record.configuration, file);
  require("cell", configuration.model.cell, then.model.cell);
  require("normalization", configuration.model.normalization, then.model.normalization);
  require("layers", configuration.model.layers, then.model.layers);
  require("hidden", configuration.model.hidden, then.model.hidden);
  require("embedding", configuration.model.embedding, then.model.embedding);
  require("optimizer", configuration.optimizer.optimizer, then.optimizer.optimizer);
  require("batch", configuration.run.batch, then.run.batch);
  require("time-steps", configuration.run.time_steps, then.run.time_steps);
  require("seed", configuration.run.seed, then.run.seed);
  require("validation-fraction", configuration.data.validation_fraction, then.data.validation_fraction);
  require("lane-groups", tiling.groups.count, point.record.lane_groups);
  require("unit-blocks", tiling.blocks.count, point.record.unit_blocks);
  if (vocabulary.characters() != point.record.vocabulary) {
    throw UserError(
        fmt::format("{} does not have the {} characters that the run in {} was trained on: give the "
                    "text of that run, or another --checkpoint folder for a new one",
                    configuration.data.data, point.record.vocabulary.size(), file));
  }
}

}  // namespace lamina
