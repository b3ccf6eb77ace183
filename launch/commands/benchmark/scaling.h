// lamina benchmark scaling: how fast training is on one process grid after another. Without MPI: it starts
// mpirun for each.
#pragma once

#include <string>
#include <vector>

#include "launch/commands/benchmark/train.h"

namespace lamina {

/// Visits all settings but those of given names.
template <class Visitor>
struct VisitorWithout {
  Visitor& visitor;
  std::vector<std::string> names;

  bool leaves_out(const std::string& name) const {
    for (const std::string& left_out : names)
      if (name == left_out) return true;
    return false;
  }
  template <class Field>
  void operator()(const char* name, Field& field, const char* help) {
    if (!leaves_out(name)) visitor(name, field, help);
  }
  void choice(const char* name, std::string& field, std::initializer_list<const char*> allowed,
              const char* help) {
    if (!leaves_out(name)) visitor.choice(name, field, allowed, help);
  }
};

struct ScalingBenchmarkSettings {
  std::string grids;
  std::string sweep = "both";
  std::string schedules = "all";
  int repetitions = 3;
  std::string mpirun = "mpirun";
  std::string json;
  TrainBenchmarkSettings train;

  template <class Visitor>
  void visit(Visitor& v) {
    v("grids", grids, "data x model ranks, as 1x1,2x1,1x2 (empty: all powers of two up to the cores)");
    v.choice("sweep", sweep, {"strong", "weak", "both"},
             "strong: --batch lanes on every grid; weak: --batch lanes for each rank");
    v.choice("schedules", schedules, {"sharded", "cell", "replicated", "all"},
             "schedule of the per-step exchanges between model ranks");
    v("repetitions", repetitions, "jobs for each row, in turn");
    v("mpirun", mpirun, "mpirun, and further options for it");
    v("json", json, "also write the figures to this file; launch/plot_scaling.sh draws them");
    VisitorWithout<Visitor> others{v, {"exchange", "model-parallel", "json"}};
    train.visit(others);
  }
  /// Throws UserError on a value out of range, and where a grid cannot carry the training.
  void validate() const;
};

/// Whether `arguments` (without the program's name) ask for this command, and this process is no rank of a
/// job.
bool asks_for_scaling(const std::vector<std::string>& arguments);

/// Does what `lamina benchmark scaling …` asks for and returns the exit code. Throws UserError.
int benchmark_scaling(const std::vector<std::string>& arguments);

}  // namespace lamina
