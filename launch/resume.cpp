#include "launch/resume.h"

#include <fmt/format.h>

#include <bit>

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

/// Throws UserError unless the setting `flag` is what that run has.
template <class Value>
void require_same(const char* flag, const Value& now, const Value& then, const ResumePoint& point) {
  if (now == then) return;
  throw UserError(
      fmt::format("--{} is {}, but the run in {} has {}: give --{} {} to go on with that run, or another "
                  "--checkpoint folder for a new one",
                  flag, now, point.file.string(), then, flag, then));
}

/// How `ranks`, or what is asked of them, can change so that each has lane groups for all its passes.
std::string room_in(const GridSettings& settings, int ranks) {
  if (settings.passes > settings.lane_groups)
    return fmt::format("use at most --passes {}", settings.lane_groups);
  const int data = settings.lane_groups / settings.passes, model = ranks / data;
  const std::string fewer = fmt::format("fewer ranks (at most {})", data * settings.model_parallel);
  return model > settings.unit_blocks ? "use " + fewer
                                      : fmt::format("use --model-parallel {}, or {}", model, fewer);
}

/// Without a digest, from an earlier program, only a text of another length is noticed, by where the lanes
/// are.
bool is_same_text(const Corpus& corpus, std::int64_t chunks, const CheckpointRecord& then) {
  if (!then.text_digest.empty()) return corpus.digest == then.text_digest;
  return then.epoch == then.step / chunks && then.chunk == then.step % chunks;
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

GridSettings layout_of_run(GridSettings settings, const ResumePoint& point, int ranks) {
  const int groups = point.record.lane_groups;
  if (settings.lane_groups != 0) require_same("lane-groups", settings.lane_groups, groups, point);
  settings.lane_groups = groups;
  const std::int64_t data = ranks / settings.model_parallel, shares = data * settings.passes;
  const bool is_axis = std::has_single_bit(static_cast<std::uint64_t>(data));  // else ProcessGrid says so
  if (!is_axis || groups % shares == 0) return settings;
  throw UserError(
      fmt::format("the run in {} was begun with {} lane groups, too few for {} data ranks x {} passes: {}",
                  point.file.string(), groups, data, settings.passes, room_in(settings, ranks)));
}

void require_same_run(const Configuration& configuration, const Tiling& tiling, const Corpus& corpus,
                      std::int64_t chunks, const ResumePoint& point) {
  const std::string file = point.file.string();
  const auto require = [&](const char* flag, const auto& now, const auto& then) {
    require_same(flag, now, then, point);
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
  if (corpus.vocabulary.characters() != point.record.vocabulary) {
    throw UserError(
        fmt::format("{} does not have the {} characters that the run in {} was trained on: give the "
                    "text of that run, or another --checkpoint folder for a new one",
                    configuration.data.data, point.record.vocabulary.size(), file));
  }
  if (!is_same_text(corpus, chunks, point.record)) {
    throw UserError(
        fmt::format("{} is not the text that the run in {} was trained on, though it has the same "
                    "characters: give the text of that run, or another --checkpoint folder for a new one",
                    configuration.data.data, file));
  }
}

}  // namespace lamina
