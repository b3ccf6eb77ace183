// Which checkpoint a run goes on from, and whether it may.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "io/checkpoint.h"
#include "launch/configuration.h"
#include "launch/corpus.h"
#include "launch/progress.h"
#include "runtime/communicator.h"
#include "runtime/tiling.h"

namespace lamina {

struct ResumePoint {
  std::filesystem::path file;
  CheckpointRecord record;
};

/// The newest checkpoint of `folder` whose record is sound; none where there is no file. Damaged files are
/// set aside with a warning; UserError when none but such are left. Collective; equal on all ranks.
std::optional<ResumePoint> find_resume_point(const CheckpointFolder& folder, Communicator& world,
                                             const Progress& progress);

/// Sets a damaged file aside, saying so. Collective.
void set_aside_damaged(const std::filesystem::path& file, const std::string& damage, Communicator& world,
                       const Progress& progress);

/// `settings` with the lane groups of that run, which decide its bits. Throws UserError where they are
/// others, or too few for `ranks`.
GridSettings layout_of_run(GridSettings settings, const ResumePoint& point, int ranks);

/// Throws UserError, naming the setting and both values, where `configuration` or the text would not go on
/// with that run. `chunks`: of an epoch.
void require_same_run(const Configuration& configuration, const Tiling& tiling, const Corpus& corpus,
                      std::int64_t chunks, const ResumePoint& point);

}  // namespace lamina
