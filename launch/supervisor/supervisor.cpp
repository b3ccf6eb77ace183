#include "launch/supervisor/supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "launch/setting.h"
#include "launch/supervisor/mpirun.h"
#include "launch/supervisor/watch.h"
#include "launch/supervisor/words.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::duration<double> kLongestPause{60};

std::vector<Host> hosts_of(const LaunchSettings& settings) {
  return settings.hosts.empty() ? std::vector<Host>{} : read_hosts(settings.hosts);
}

std::string agent_of(const LaunchSettings& settings) {
  const char* chosen = std::getenv("OMPI_MCA_plm_rsh_agent");
  if (!settings.remote_agent.empty()) return settings.remote_agent;
  return chosen == nullptr || *chosen == '\0' ? "ssh" : chosen;
}

/// The lane groups of the run to go on with, where a checkpoint tells.
std::optional<int> lane_groups_in(const CheckpointFolder& folder) {
  std::vector<fs::path> files = folder.list();
  for (; !files.empty(); files.pop_back()) {
    try {
      return read_record(files.back()).lane_groups;
    } catch (const DamagedCheckpoint&) {  // train sets it aside and says so
    }
  }
  return std::nullopt;
}

/// How many ranks the first start has.
int first_ranks(const LaunchSettings& settings, const std::vector<Host>& hosts, GridSettings grid) {
  const int slots = slots_of(hosts);
  if (hosts.empty()) return settings.ranks;
  require(settings.ranks <= slots,
          fmt::format("--ranks {} are more than the {} slots in {}: give fewer ranks, "
                      "or more slots",
                      settings.ranks, slots, settings.hosts));
  require(grid.model_parallel <= slots,
          fmt::format("--model-parallel {} needs as many slots, and {} has {}: give more slots, or a smaller "
                      "--model-parallel",
                      grid.model_parallel, settings.hosts, slots));
  if (settings.ranks > 0) return settings.ranks;
  if (grid.lane_groups == 0) grid.lane_groups = slots * grid.passes;
  return largest_grid(slots, grid).ranks;
}

/// `grid` with the number of lane groups that the run has, or will have after a start on `ranks`.
GridSettings with_lane_groups(GridSettings grid, const CheckpointFolder& folder, bool resume, int ranks) {
  if (grid.lane_groups == 0 && resume) grid.lane_groups = lane_groups_in(folder).value_or(0);
  if (grid.lane_groups == 0) grid.lane_groups = std::max(1, ranks / grid.model_parallel * grid.passes);
  return grid;
}

/// `arguments` without what they say of the settings in `names`.
std::vector<std::string> without(const std::vector<std::string>& arguments,
                                 const std::set<std::string>& names) {
  const std::set<std::string> switches{"--resume", "--no-resume", "--overwrite", "--no-overwrite"};
  std::vector<std::string> kept;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    if (!names.contains(name))
      kept.push_back(arguments[i]);
    else if (name == arguments[i] && !switches.contains(name))
      ++i;  // its value
  }
  return kept;
}

std::string plural(int count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace

Supervisor::Supervisor(LaunchSettings settings, std::vector<std::string> arguments,
                       const Configuration& configuration)
    : settings_(std::move(settings)),
      arguments_(std::move(arguments)),
      folder_(configuration.checkpoint.checkpoint),
      resume_(configuration.checkpoint.resume),
      overwrite_(configuration.checkpoint.overwrite),
      hosts_(hosts_of(settings_)),
      ranks_(first_ranks(settings_, hosts_, configuration.grid)),
      grid_(with_lane_groups(configuration.grid, folder_, resume_, ranks_)),
      incidents_(folder_.path()),
      restarts_left_(settings_.max_restarts),
      old_checkpoints_(times_of(folder_.list())),
      pause_(settings_.backoff) {}

int Supervisor::run() {
  auto placement = place();
  if (!placement) throw UserError("no host in " + settings_.hosts + " answers", ExitCode::peer_lost);
  for (;;) {
    const JobEnd end = run_job(*placement);
    refill_after_progress();
    if (!end.restart) return conclude(end, "not restarted");
    if (restarts_left_ == 0) return conclude(end, "not restarted: no restarts are left");
    placement = place();
    if (!placement) return conclude(end, "not restarted: no host answers");

    --restarts_left_;
    report(end, fmt::format("restarting from step {} on {} in {:.3g} s; {} left", newest_step().value_or(0),
                            plural(placement->grid.ranks, "rank"), pause_.count(),
                            plural(restarts_left_, "restart")));
    if (const auto stop = wait_for_restart()) return conclude(*stop, "not restarted");
  }
}

JobEnd Supervisor::run_job(const Placement& placement) {
  ++attempt_;
  last_grid_ = placement.grid;
  if (const auto now = checkpoints()) checkpoints_at_start_ = *now;
  std::ofstream(hostfile()) << hostfile_of(placement.hosts);

  const auto start = Clock::now();
  Process mpirun(command(placement), {.environment = {fmt::format("{}={}", kJobVariable, job_.job())}});
  const WatchLimits limits{.saving = std::chrono::seconds(settings_.grace),
                           .ending = std::chrono::seconds(settings_.end_timeout),
                           .all_ranks_are_here = placement.hosts.empty() && !batch_system_places_ranks()};
  const JobEnd end = watch(mpirun, signals_, limits, job_.job());
  lasted_ = Clock::now() - start;

  kill_processes(job_.job());
  job_.clear();
  return end;
}

/// The grid of the first start, or the largest one that fits on the hosts that answer; none where no host
/// does.
auto Supervisor::place() const -> std::optional<Placement> {
  const JobGrid wanted{ranks_, grid_.model_parallel};
  if (hosts_.empty()) return Placement{wanted, {}};
  const std::vector<Host> there = answering_hosts();
  for (const Host& host : hosts_)
    if (std::ranges::find(there, host.name, &Host::name) == there.end())
      say_at_supervisor(fmt::format("host {} does not answer and is left out", host.name));
  if (there.empty()) return std::nullopt;
  const int slots = slots_of(there);
  return Placement{slots >= ranks_ ? wanted : largest_grid(slots, grid_), there};
}

/// What is left of the job on a host goes before the host counts as there.
std::vector<Host> Supervisor::answering_hosts() const {
  const RemoteAgent agent{agent_of(settings_), std::chrono::seconds(settings_.host_timeout)};
  return answering(hosts_, agent, cleaning_script(job_.job(), job_.path()));
}

std::vector<std::string> Supervisor::command(const Placement& placement) const {
  std::vector<std::string> words = start_of_mpirun(settings_.mpirun, placement.grid.ranks, job_);
  if (placement.hosts.empty())
    add_this_machine(words, placement.grid.ranks);
  else
    add_hosts(words);
  words.push_back(own_program());
  const std::vector<std::string> more = training(placement.grid);
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

void Supervisor::add_hosts(std::vector<std::string>& words) const {
  append(words, {"--hostfile", hostfile().string()});
  if (!settings_.remote_agent.empty()) append(words, {"--mca", "plm_rsh_agent", settings_.remote_agent});
  const int part = std::max(1, settings_.end_timeout / 6);  // 2 until the first probe, and 4 probes
  append(words, {"--mca", "oob_tcp_keepalive_time", std::to_string(2 * part), "--mca",
                 "oob_tcp_keepalive_intvl", std::to_string(part), "--mca", "oob_tcp_keepalive_probes", "4"});
}

/// The arguments of the program for the next start. Both switches are always said: a file of --config may
/// have them too. Where it is not known whose checkpoints are there, the ranks refuse to touch any.
std::vector<std::string> Supervisor::training(const JobGrid& grid) const {
  std::vector<std::string> words = without(arguments_, {"--lane-groups", "--model-parallel", "--resume",
                                                        "--no-resume", "--overwrite", "--no-overwrite"});
  append(words, {"--lane-groups", std::to_string(grid_.lane_groups), "--model-parallel",
                 std::to_string(grid.model_parallel)});
  const auto now = checkpoints();
  const bool begins_anew = overwrite_ && now && (now->empty() || are_left_of_old(*now));
  const bool goes_on = !begins_anew && (resume_ || (attempt_ > 1 && (now || !overwrite_)));
  append(words, {goes_on ? "--resume" : "--no-resume", begins_anew ? "--overwrite" : "--no-overwrite"});
  return words;
}

/// An earlier run that is to be overwritten must not be resumed, however early this one's first start failed.
bool Supervisor::are_left_of_old(const FileTimes& now) const {
  return std::ranges::any_of(old_checkpoints_, [&](const auto& old) { return is_among(now, old); });
}

/// Any new checkpoint counts: after damage, or --overwrite, its step may be lower than one that was there.
void Supervisor::refill_after_progress() {
  const auto now = checkpoints();
  if (!now)
    return say_at_supervisor(
        fmt::format("the checkpoints in {} cannot be listed: no progress is known", folder_.path().string()));
  if (std::ranges::all_of(*now, [&](const auto& file) { return is_among(checkpoints_at_start_, file); }))
    return;
  restarts_left_ = settings_.max_restarts;
  pause_ = std::chrono::duration<double>(settings_.backoff);
}

/// A stop, when one is asked for in the meantime.
std::optional<JobEnd> Supervisor::wait_for_restart() {
  const auto end = Clock::now() + pause_;
  pause_ = std::min(2 * pause_, kLongestPause);
  do {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    const auto signal = signals_.wait(std::max(left, std::chrono::milliseconds(0)));
    if (signal && *signal != SIGCHLD) return stopped_between_jobs(*signal);
  } while (Clock::now() < end);
  return std::nullopt;
}

int Supervisor::conclude(const JobEnd& end, const std::string& why) {
  if (end.exit_code != 0) report(end, why);
  incidents_.list();
  if (!hosts_.empty()) answering_hosts();  // cleans them
  return end.exit_code;
}

void Supervisor::report(const JobEnd& end, const std::string& next) {
  incidents_.report({.attempt = attempt_,
                     .ranks = last_grid_.ranks,
                     .seconds = lasted_.count(),
                     .what = end.words,
                     .step = newest_step(),
                     .next = next});
}

/// The checkpoints by step; none while the folder cannot be listed, which may pass.
std::optional<std::vector<fs::path>> Supervisor::list() const {
  try {
    return folder_.list();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

auto Supervisor::checkpoints() const -> std::optional<FileTimes> {
  const auto files = list();
  return files ? std::optional(times_of(*files)) : std::nullopt;
}

auto Supervisor::times_of(const std::vector<fs::path>& files) -> FileTimes {
  FileTimes times;
  for (const fs::path& file : files) {
    std::error_code gone;
    times[file] = fs::last_write_time(file, gone);
  }
  return times;
}

bool Supervisor::is_among(const FileTimes& files, const FileTimes::value_type& file) {
  const auto found = files.find(file.first);
  return found != files.end() && found->second == file.second;
}

std::optional<std::int64_t> Supervisor::newest_step() const {
  const auto files = list();
  if (!files || files->empty()) return std::nullopt;
  const std::string name = files->back().stem().string();
  return std::stoll(name.substr(name.find('-') + 1));
}

fs::path Supervisor::hostfile() const { return job_.path() / "hosts"; }

}  // namespace lamina
