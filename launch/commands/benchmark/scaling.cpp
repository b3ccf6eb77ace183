#include "launch/commands/benchmark/scaling.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <optional>

#include "launch/commands/benchmark/figures_file.h"
#include "launch/commands/benchmark/grid_list.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/benchmark/stopwatch.h"
#include "launch/commands/benchmark/table.h"
#include "launch/commands/output.h"
#include "launch/flags.h"
#include "launch/supervisor/job_end.h"
#include "launch/supervisor/job_processes.h"
#include "launch/supervisor/mpirun.h"
#include "launch/supervisor/process.h"
#include "launch/supervisor/words.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

/// One row of the table: a training on a grid, and what its jobs told.
struct Point {
  std::string sweep, schedule;
  Grid grid;
  int batch = 0;
  std::vector<double> tokens_per_second{}, exposed{}, limit_share{}, milliseconds{};
};

bool has(const std::string& choice, const char* name) {
  return choice == name || choice == "both" || choice == "all";
}

std::vector<Grid> grids_in(const ScalingBenchmarkSettings& settings) {
  return settings.grids.empty() ? grids_up_to(cores()) : grids_of(settings.grids);
}

int lanes_of(int batch, int shares) {
  const std::int64_t lanes = std::int64_t{batch} * shares;
  require(lanes <= kMostLanes,
          fmt::format("--batch {} for each of {} ranks makes {} lanes and at most {} are allowed: give a "
                      "smaller --batch, or smaller --grids",
                      batch, shares, lanes, kMostLanes));
  return static_cast<int>(lanes);
}

/// A model axis of one rank has no exchanges to schedule: it stands for all.
std::vector<Point> points_of(const ScalingBenchmarkSettings& settings) {
  std::vector<Point> points;
  for (const char* sweep : {"strong", "weak"})
    for (const Grid& grid : grids_in(settings))
      for (const char* schedule : {"sharded", "cell", "replicated"}) {
        if (!has(settings.sweep, sweep)) continue;
        const bool stands_for_all = grid.model == 1 && schedule == std::string("sharded");
        if (grid.model == 1 ? !stands_for_all : !has(settings.schedules, schedule)) continue;
        const int shares = sweep == std::string("weak") ? grid.ranks() : 1;
        points.push_back({sweep, schedule, grid, lanes_of(settings.train.batch, shares)});
      }
  return points;
}

TrainBenchmarkSettings training_at(const Point& point, const ScalingBenchmarkSettings& settings) {
  TrainBenchmarkSettings training = settings.train;
  training.batch = point.batch;
  training.model.exchange = point.schedule;
  training.grid.model_parallel = point.grid.model;
  return training;
}

Words arguments_of(TrainBenchmarkSettings training) {
  Words words{"benchmark", "train"};
  for (const Setting& setting : settings_of(training))
    if (const std::string value = text_of(setting); !value.empty())
      append(words, {"--" + setting.name, value});
  return words;
}

class ScalingBenchmark {
 public:
  explicit ScalingBenchmark(const ScalingBenchmarkSettings& settings)
      : settings_(settings), points_(points_of(settings)) {}

  void run() {
    interleave(settings_.repetitions, points_.size(), [&](std::size_t i) { measure(points_[i]); });
    print(table());
    if (!settings_.json.empty()) write_figures(settings_.json, facts(), rows());
  }

 private:
  void measure(Point& point) {
    const std::string figures = job_.path() / "figures.json";
    Words words = start_of_mpirun(settings_.mpirun, point.grid.ranks(), job_);
    add_this_machine(words, point.grid.ranks());
    words.push_back(own_program());
    TrainBenchmarkSettings training = training_at(point, settings_);
    training.json = figures;
    for (std::string& word : arguments_of(training)) words.push_back(std::move(word));

    const JobEnd end = end_of_job(run_to_the_end(words));
    if (end.exit_code != 0)
      throw UserError(fmt::format("the job on {} ranks ({}) ended with {}", point.grid.ranks(),
                                  point.grid.text(), end.words),
                      static_cast<ExitCode>(end.exit_code));
    std::ifstream file(figures);
    record(Json::parse(file).at("rows").at(0), point);
    job_.clear();
  }

  /// The status of mpirun, whose ranks are gone then.
  int run_to_the_end(const Words& words) {
    Process mpirun(words, {.environment = {fmt::format("{}={}", kJobVariable, job_.job())},
                           .speaks_only_of_errors = true});
    std::optional<int> status, signal;
    while (!(status = mpirun.poll()) && !(signal && *signal != SIGCHLD)) signal = signals_.wait(500ms);
    if (!status) mpirun.end(5s);
    kill_processes(job_.job());
    if (!status)
      throw UserError(fmt::format("stopped by {} before all was measured", name_of_signal(*signal)));
    return *status;
  }

  static void record(const Json& row, Point& point) {
    point.tokens_per_second.push_back(row.at("tokens_per_second"));
    point.exposed.push_back(row.at("exposed_communication"));
    point.limit_share.push_back(row.at("gemm_limit_share"));
    point.milliseconds.push_back(row.at("milliseconds").at("median"));
  }

  /// Of the smallest grid of the same sweep, the first where several are.
  const Point& base_of(const Point& point) const {
    const Point* base = &point;
    for (const Point& other : points_)
      if (other.sweep == point.sweep && other.grid.ranks() < base->grid.ranks() &&
          (other.schedule == point.schedule || other.grid.model == 1))
        base = &other;
    return *base;
  }
  double speed_up(const Point& point) const {
    return median(point.tokens_per_second) / median(base_of(point).tokens_per_second);
  }
  double efficiency(const Point& point) const {
    return speed_up(point) * base_of(point).grid.ranks() / point.grid.ranks();
  }

  std::string table() const {
    const TrainBenchmarkSettings& training = settings_.train;
    std::string heading = fmt::format(
        "{}-layer LSTM, {}, {} units, {} normalization, {} time steps, on {} cores, {} jobs each\n",
        training.model.layers, training.model.layer_order, training.model.hidden,
        training.model.normalization, training.time_steps, cores(), settings_.repetitions);
    Table table({"sweep", "grid", "schedule", "ranks", "lanes", "tokens/s", "min", "max", "speed-up",
                 "efficiency", "exposed", "limit"},
                3);
    for (const Point& point : points_) {
      const std::vector<double>& tokens = point.tokens_per_second;
      table.add({point.sweep, point.grid.text(), point.grid.model == 1 ? "-" : point.schedule,
                 fmt::to_string(point.grid.ranks()), fmt::to_string(point.batch),
                 fmt::format("{:.0f}", median(tokens)), fmt::format("{:.0f}", least(tokens)),
                 fmt::format("{:.0f}", largest(tokens)), fmt::format("{:.2f}", speed_up(point)),
                 fmt::format("{:.2f}", efficiency(point)), fmt::format("{:.3f}", median(point.exposed)),
                 fmt::format("{:.3f}", median(point.limit_share))});
    }
    return heading + table.text() +
           "exposed: share of exchanges and of waiting in them; limit: share of a step that its matrix "
           "products "
           "alone take\n";
  }

  Json facts() const {
    Json facts = machine_facts();
    facts.update({{"benchmark", "scaling"},
                  {"cores", cores()},
                  {"layers", settings_.train.model.layers},
                  {"layer_order", settings_.train.model.layer_order},
                  {"hidden", settings_.train.model.hidden},
                  {"normalization", settings_.train.model.normalization},
                  {"time_steps", settings_.train.time_steps},
                  {"threads", settings_.train.threads}});
    return facts;
  }

  std::vector<Json> rows() const {
    std::vector<Json> rows;
    for (const Point& point : points_)
      rows.push_back({{"sweep", point.sweep},
                      {"grid", point.grid.text()},
                      {"exchange", point.schedule},
                      {"ranks", point.grid.ranks()},
                      {"data_ranks", point.grid.data},
                      {"model_ranks", point.grid.model},
                      {"batch", point.batch},
                      {"tokens_per_second", median(point.tokens_per_second)},
                      {"speed_up", speed_up(point)},
                      {"efficiency", efficiency(point)},
                      {"exposed_communication", median(point.exposed)},
                      {"gemm_limit_share", median(point.limit_share)},
                      {"milliseconds", summary_of(point.milliseconds)}});
    return rows;
  }

  const ScalingBenchmarkSettings settings_;
  std::vector<Point> points_;
  Signals signals_;
  JobFolder job_;
};

}  // namespace

void ScalingBenchmarkSettings::validate() const {
  at_least("repetitions", repetitions, 1);
  validate_step(train.batch, train.time_steps);
  require(!words_of(mpirun).empty(), "--mpirun must name mpirun, not be empty");
  for (const Point& point : points_of(*this)) {
    const TrainBenchmarkSettings training = training_at(point, *this);
    training.validate();
    require_layout(point.grid.ranks(), training.grid, training.batch);
  }
  require_writable(json, train.data);
}

bool asks_for_scaling(const Words& arguments) {
  return !is_started_by_mpirun() && arguments.size() >= 2 && arguments[0] == "benchmark" &&
         arguments[1] == "scaling";
}

int benchmark_scaling(const Words& arguments) {
  CLI::App app("training on one process grid after another: strong and weak scaling",
               "lamina benchmark scaling");
  app.formatter(help_format());
  app.set_help_flag("--help,-h", "show this help");
  ScalingBenchmarkSettings settings;
  Flags flags(app);
  flags.add("Settings", settings_of(settings));
  try {
    parse_arguments(app, {arguments.begin() + 2, arguments.end()});
  } catch (const CLI::Success&) {
    print(app.help());
    return 0;
  }
  flags.apply();
  settings.validate();
  ScalingBenchmark(settings).run();
  return 0;
}

}  // namespace lamina
