#include "launch/commands/benchmark/layer.h"

#include <fmt/format.h>

#include <map>
#include <memory>
#include <vector>

#include "launch/agreement.h"
#include "launch/checkpointing.h"
#include "launch/commands/benchmark/figures_file.h"
#include "launch/commands/benchmark/measured_layer.h"
#include "launch/commands/benchmark/numbers.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/benchmark/stopwatch.h"
#include "launch/commands/benchmark/table.h"
#include "launch/commands/output.h"

namespace lamina {
namespace {

/// One line of the table: what a layer does, beside the products that it needs for it.
struct Row {
  const char* what;
  const std::vector<double>&seconds, &product_seconds;
  double flops;

  double rate() const { return flops / median(product_seconds); }
  double share() const { return median(product_seconds) / median(seconds); }
};

std::vector<Row> rows_of(const MeasuredLayer& layer) {
  const LayerTimes& times = layer.times();
  const double forward = layer.forward_flops(), backward = layer.backward_flops();
  return {{"forward", times.forward, times.products_forward, forward},
          {"backward", times.backward, times.products_backward, backward},
          {"both", times.both, times.products_both, forward + backward}};
}

class LayerBenchmark {
 public:
  LayerBenchmark(const LayerBenchmarkSettings& settings, Communicator& world)
      : settings_(settings),
        world_(world),
        threads_(threads_per_rank(settings.threads, world)),
        backend_(make_backend(settings.device, threads_, world)),
        grid_{.model_parallel = settings.model_parallel == 0 ? world.size() : settings.model_parallel,
              .unit_blocks = settings.unit_blocks} {
    for (const int hidden : numbers_of("hidden", settings.hidden))
      for (const int batch : numbers_of("batch", settings.batch))
        for (const int steps : numbers_of("steps", settings.steps))
          layers_.push_back(
              std::make_unique<MeasuredLayer>(shape(hidden, steps), batch, *backend_,
                                              grids_.try_emplace(batch, world, grid_, batch).first->second));
  }

  void run() {
    interleave(settings_.repetitions, layers_.size(), [&](std::size_t i) { layers_[i]->measure(); });
    if (world_.rank() == 0) print(heading() + table());
    if (settings_.json.empty()) return;
    from_root(world_, [&] {
      write_figures(settings_.json, facts(), rows());
      return std::string();
    });
  }

 private:
  RecurrenceShape shape(int hidden, int steps) const {
    return {.inputs = settings_.inputs == 0 ? hidden : settings_.inputs,
            .hidden = hidden,
            .max_time_steps = steps,
            .tiling = {},
            .normalization = settings_.normalization == "layer" ? Normalization::layer : Normalization::none,
            .exchange = exchange_named(settings_.exchange),
            .precision = precision_named(settings_.precision),
            .time_loop = time_loop_named(settings_.time_loop)};
  }

  std::string heading() const {
    return fmt::format(
        "LSTM layer, {} normalization, {}, {} data x {} model ranks ({}, {}), {} times\n{} each rank\n",
        settings_.normalization, settings_.precision, world_.size() / grid_.model_parallel,
        grid_.model_parallel, settings_.exchange, world_.transport(), settings_.repetitions,
        backend_->description());
  }

  std::string table() const {
    Table table({"pass", "units", "lanes", "steps", "ms", "min", "max", "us/step", "GF/s alone", "ms alone",
                 "share"});
    for (const auto& layer : layers_) {
      for (const Row& row : rows_of(*layer))
        table.add({row.what, fmt::to_string(layer->hidden()), fmt::to_string(layer->batch()),
                   fmt::to_string(layer->time_steps()), milliseconds(median(row.seconds)),
                   milliseconds(least(row.seconds)), milliseconds(largest(row.seconds)),
                   fmt::format("{:.1f}", microseconds_per_step(*layer, row)),
                   fmt::format("{:.1f}", row.rate() / 1e9), milliseconds(median(row.product_seconds)),
                   fmt::format("{:.3f}", row.share())});
    }
    return table.text() +
           "alone: the layer's matrix products by themselves in f32, operands laid out for them; share: of "
           "the layer's time" +
           (settings_.precision == "bf16" ? ", above 1 where bf16 makes it shorter\n" : "\n");
  }

  Json facts() const {
    Json facts = machine_facts();
    facts.update({{"benchmark", "layer"},
                  {"ranks", world_.size()},
                  {"model_ranks", grid_.model_parallel},
                  {"transport", world_.transport()},
                  {"device", backend_->description()},
                  {"threads", threads_},
                  {"unit_blocks", settings_.unit_blocks},
                  {"normalization", settings_.normalization},
                  {"precision", settings_.precision},
                  {"time_loop", settings_.time_loop},
                  {"exchange", settings_.exchange}});
    return facts;
  }

  std::vector<Json> rows() const {
    std::vector<Json> rows;
    for (const auto& layer : layers_)
      for (const Row& row : rows_of(*layer))
        rows.push_back({{"pass", row.what},
                        {"hidden", layer->hidden()},
                        {"inputs", layer->inputs()},
                        {"batch", layer->batch()},
                        {"time_steps", layer->time_steps()},
                        {"milliseconds", summary_of(row.seconds, 1e3)},
                        {"microseconds_per_step", microseconds_per_step(*layer, row)},
                        {"gemm_gflops_per_second", row.rate() / 1e9},
                        {"gemm_milliseconds", summary_of(row.product_seconds, 1e3)},
                        {"gemm_share", row.share()},
                        {"packing_milliseconds", summary_of(layer->times().packing, 1e3)}});
    return rows;
  }

  static double microseconds_per_step(const MeasuredLayer& layer, const Row& row) {
    return 1e6 * median(row.seconds) / layer.time_steps();
  }
  static std::string milliseconds(double seconds) { return fmt::format("{:.2f}", 1e3 * seconds); }

  const LayerBenchmarkSettings settings_;
  Communicator& world_;
  int threads_;
  std::map<int, ProcessGrid> grids_;  ///< by lanes; outlive the backend
  std::unique_ptr<Backend> backend_;
  GridSettings grid_;
  std::vector<std::unique_ptr<MeasuredLayer>> layers_;
};

}  // namespace

void LayerBenchmarkSettings::validate() const {
  at_least("inputs", inputs, 0);
  at_most("inputs", inputs, kMostUnits);
  at_least("model-parallel", model_parallel, 0);
  at_least("unit-blocks", unit_blocks, 1);
  at_least("threads", threads, 0);
  at_least("repetitions", repetitions, 1);
  for (const int lanes : numbers_of("batch", batch))
    for (const int length : numbers_of("steps", steps)) validate_step(lanes, length, "steps");
  for (const int units : numbers_of("hidden", hidden)) {
    at_most("hidden", units, kMostUnits);
    require(units % unit_blocks == 0,
            fmt::format("--hidden must be multiples of --unit-blocks ({}), not {}", unit_blocks, units));
  }
  require(inputs % unit_blocks == 0,
          fmt::format("--inputs must be a multiple of --unit-blocks ({}), not {}", unit_blocks, inputs));
}

void benchmark_layer(const LayerBenchmarkSettings& settings, Communicator& world) {
  settings.validate();
  from_root(world, [&] {
    require_writable(settings.json);
    return std::string();
  });
  LayerBenchmark(settings, world).run();
}

}  // namespace lamina
