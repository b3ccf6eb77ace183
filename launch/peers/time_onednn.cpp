// Times oneDNN's LSTM primitive, forward for training and backward, and prints one line of JSON. On as many
// threads as OMP_NUM_THREADS says.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <dnnl.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "launch/peers/onednn_lstm.h"
#include "runtime/error.h"

namespace lamina {
namespace {

struct Plan {
  PeerShape shape;
  int warm_up = 2, repetitions = 3;
};

std::vector<float> uniform(std::mt19937& draw, int size, float bound) {
  std::uniform_real_distribution<float> distribution(-bound, bound);
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = distribution(draw);
  return values;
}

void fill(OneDnnLstm& lstm, const PeerShape& s) {
  std::mt19937 draw(1);
  const float bound = 1 / std::sqrt(static_cast<float>(s.hidden));
  const int state = s.batch * s.hidden;
  lstm.set({uniform(draw, s.inputs * 4 * s.hidden, bound), uniform(draw, s.hidden * 4 * s.hidden, bound),
            uniform(draw, 4 * s.hidden, bound)},
           {uniform(draw, s.steps * s.batch * s.inputs, 1), uniform(draw, state, 1), uniform(draw, state, 1),
            uniform(draw, s.steps * state, 1)});
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// One value per run.
struct Times {
  std::vector<double> forward, both;
};

void run(OneDnnLstm& lstm, Times& times) {
  lstm.clear_gradients();
  const auto start = std::chrono::steady_clock::now();
  lstm.forward();
  times.forward.push_back(seconds_since(start));
  lstm.backward();
  times.both.push_back(seconds_since(start));
}

nlohmann::ordered_json measure(const Plan& plan) {
  OneDnnLstm lstm(plan.shape);
  fill(lstm, plan.shape);
  Times warm_up, times;
  for (int i = 0; i < plan.warm_up; ++i) run(lstm, warm_up);
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();  // of all threads
  for (int i = 0; i < plan.repetitions; ++i) run(lstm, times);
  const dnnl_version_t& version = *dnnl::version();
  return {{"seconds", times.both},
          {"forward_seconds", times.forward},
          {"wall_seconds", seconds_since(start)},
          {"cpu_seconds", static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC},
          {"version", fmt::format("oneDNN {}.{}.{}", version.major, version.minor, version.patch)}};
}

Plan parse(CLI::App& app, int argc, char** argv) {
  Plan plan;
  app.add_option("--hidden", plan.shape.hidden, "units, and inputs of the layer")->required();
  app.add_option("--batch", plan.shape.batch, "examples")->required();
  app.add_option("--steps", plan.shape.steps, "time steps")->required();
  app.add_option("--warm-up", plan.warm_up, "runs before those that are timed");
  app.add_option("--repetitions", plan.repetitions, "runs that are timed");
  app.parse(argc, argv);
  plan.shape.inputs = plan.shape.hidden;
  return plan;
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  CLI::App app("Times oneDNN's LSTM primitive, forward and backward; compare_peers.py starts it.");
  try {
    const lamina::Plan plan = lamina::parse(app, argc, argv);
    std::puts(lamina::measure(plan).dump().c_str());
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "time_onednn: %s\n", error.what());
    return 1;
  }
  return 0;
}
