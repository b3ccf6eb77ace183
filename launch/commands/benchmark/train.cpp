#include "launch/commands/benchmark/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "launch/agreement.h"
#include "launch/commands/benchmark/figures_file.h"
#include "launch/commands/benchmark/layer_products.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/benchmark/shares.h"
#include "launch/commands/benchmark/stopwatch.h"
#include "launch/commands/benchmark/table.h"
#include "launch/commands/output.h"
#include "launch/training.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

/// Of a text that is made up, which has eight steps: it would take minutes and gigabytes to make more.
constexpr std::int64_t kMostCharactersOfAStep = 1 << 25;

/// None where there is a text to be read.
std::optional<Corpus> corpus_of(const TrainBenchmarkSettings& settings) {
  if (!settings.data.empty()) return std::nullopt;
  const std::int64_t chunk = std::int64_t{settings.batch} * settings.time_steps;
  return made_up_corpus(settings.vocabulary, std::max<std::int64_t>(settings.vocabulary, 8 * chunk) + 1);
}

/// The products of one step on this rank.
std::vector<Product> products_of(const TrainBenchmarkSettings& settings, int vocabulary, ProcessGrid& grid) {
  Tiling pass = grid.tiling();
  pass.groups.local /= grid.passes();
  std::vector<Product> all;
  const auto add = [&](const LayerProducts& products) {
    for (const auto* direction : {&products.forward, &products.backward})
      for (Product product : *direction) {
        product.count *= grid.passes();
        all.push_back(product);
      }
  };
  const ModelSettings& model = settings.model;
  for (int layer = 0; layer < model.layers; ++layer)
    add(products_of_lstm(layer == 0 ? model.embedding : model.hidden, model.hidden, settings.time_steps, pass,
                         layer == 0 && model.dropout == 0 ? vocabulary : 0));
  add(products_of_output(model.hidden, vocabulary, settings.time_steps, pass));
  return all;
}

class TrainBenchmark {
 public:
  TrainBenchmark(const TrainBenchmarkSettings& settings, Communicator& world)
      : settings_(settings),
        world_(world),
        training_(settings.configuration(), {}, {}, Progress(false), world, corpus_of(settings)),
        products_(training_.backend().make_product_series(
            products_of(settings, training_.vocabulary(), training_.grid()))),
        recorder_(training_.threads()) {}

  void run() {
    training_.begin();
    for (int i = 0; i < settings_.untimed_steps; ++i) step();
    for (int i = 0; i < 2; ++i) products_->run();  // a device may record the second run
    interleave(settings_.steps, kWays.size(), [&](std::size_t way) { (this->*kWays[way])(); });
    shares_ = shares_of(recorder_.own_times(), world_);
    flops_ = flops_of(products_->products());
    world_.all_reduce(std::span(&flops_, 1));
    if (world_.rank() == 0) print(heading() + table());
    if (settings_.json.empty()) return;
    from_root(world_, [&] {
      write_figures(settings_.json, facts(), {row()});
      return std::string();
    });
  }

 private:
  void step() {
    training_.train_step();
    if (training_.stops())
      throw UserError("stopped on request, before all steps were measured", ExitCode::preempted_and_saved);
  }
  template <class Work>
  double seconds(const Work& work) {
    return seconds_of(world_, training_.backend(), work);
  }
  void plain_step() {
    plain_.push_back(seconds([&] { step(); }));
  }
  void recorded_step() {
    recorded_.push_back(seconds([&] {
      const TraceScope on(&recorder_);
      const Span span(SpanKind::other, "step");
      step();
    }));
  }
  void products_alone() {
    alone_.push_back(seconds([&] { products_->run(); }));
  }
  static constexpr std::array kWays{&TrainBenchmark::plain_step, &TrainBenchmark::recorded_step,
                                    &TrainBenchmark::products_alone};

  double tokens_per_second() const {
    return static_cast<double>(settings_.batch) * settings_.time_steps / median(plain_);
  }
  double limit_share() const { return median(alone_) / median(plain_); }
  double rate() const { return flops_ / median(alone_); }
  double price_of_recording() const { return median(recorded_) / median(plain_) - 1; }

  std::string heading() {
    const ModelSettings& model = settings_.model;
    ProcessGrid& grid = training_.grid();
    return fmt::format(
        "{}-layer LSTM, {}, {} units, {} normalization, batch {}, {} time steps, vocabulary {}\n"
        "{} data x {} model ranks ({}, {}), {} threads each rank, {} steps\n"
        "{:.0f} tokens/s; {:.2f} ms a step, {:.2f} to {:.2f}\n"
        "{:.1f} GF/s: its matrix products alone take {:.2f} ms, {:.3f} of a step\n",
        model.layers, model.layer_order, model.hidden, model.normalization, settings_.batch,
        settings_.time_steps, training_.vocabulary(), grid.data().size(), grid.model().size(), model.exchange,
        world_.transport(), training_.threads(), settings_.steps, tokens_per_second(), 1e3 * median(plain_),
        1e3 * least(plain_), 1e3 * largest(plain_), rate() / 1e9, 1e3 * median(alone_), limit_share());
  }

  std::string table() const {
    Table table({"where time goes", "share", "ms"});
    for (std::size_t kind = 0; kind < kSpanKinds; ++kind)
      table.add({name_of(static_cast<SpanKind>(kind)), fmt::format("{:.3f}", shares_[kind]),
                 fmt::format("{:.2f}", 1e3 * shares_[kind] * median(plain_))});
    const char* whose =
        settings_.device == "cpu" ? "" : "of the host, which hands work to the device and waits\n";
    return table.text() + whose +
           fmt::format("steps that record this take {:+.1f} % longer\n", 100 * price_of_recording());
  }

  Json facts() {
    Json facts = machine_facts();
    facts.update({{"benchmark", "train"},
                  {"ranks", world_.size()},
                  {"transport", world_.transport()},
                  {"device", training_.backend().description()}});
    return facts;
  }

  Json row() {
    const ModelSettings& model = settings_.model;
    Json shares;
    for (std::size_t kind = 0; kind < kSpanKinds; ++kind)
      shares[name_of(static_cast<SpanKind>(kind))] = shares_[kind];
    return {{"data_ranks", training_.grid().data().size()},
            {"model_ranks", training_.grid().model().size()},
            {"threads", training_.threads()},
            {"exchange", model.exchange},
            {"normalization", model.normalization},
            {"layers", model.layers},
            {"layer_order", model.layer_order},
            {"hidden", model.hidden},
            {"embedding", model.embedding},
            {"vocabulary", training_.vocabulary()},
            {"batch", settings_.batch},
            {"time_steps", settings_.time_steps},
            {"tokens_per_second", tokens_per_second()},
            {"milliseconds", summary_of(plain_, 1e3)},
            {"shares", shares},
            {"exposed_communication", exposed_communication(shares_)},
            {"recording_overhead", price_of_recording()},
            {"gemm_gflops_per_second", rate() / 1e9},
            {"gemm_milliseconds", summary_of(alone_, 1e3)},
            {"gemm_limit_share", limit_share()}};
  }

  const TrainBenchmarkSettings settings_;
  Communicator& world_;
  Training training_;
  std::unique_ptr<ProductSeries> products_;
  TraceRecorder recorder_;
  std::vector<double> plain_, recorded_, alone_;  ///< seconds
  KindShares shares_{};
  double flops_ = 0;  ///< of a step's products, all ranks
};

}  // namespace

Configuration TrainBenchmarkSettings::configuration() const {
  Configuration configuration;
  configuration.data.data = data.empty() ? "random characters" : data;
  configuration.data.validation_fraction = 0;
  configuration.model = model;
  configuration.optimizer = optimizer;
  configuration.grid = grid;
  configuration.run.batch = batch;
  configuration.run.time_steps = time_steps;
  configuration.run.steps = untimed_steps + 2 * std::int64_t{steps};
  configuration.run.device = device;
  configuration.run.threads = threads;
  return configuration;
}

void TrainBenchmarkSettings::validate() const {
  at_least("steps", steps, 1);
  at_least("untimed-steps", untimed_steps, 0);
  at_least("vocabulary", vocabulary, 2);
  require(vocabulary <= 0xd000, fmt::format("--vocabulary must be at most {}, not {}", 0xd000, vocabulary));
  configuration().validate();
  const std::int64_t characters = std::int64_t{batch} * time_steps;
  require(!data.empty() || characters <= kMostCharactersOfAStep,
          fmt::format("--batch {} with --time-steps {} makes {} characters a step and a text of at most {} a "
                      "step is made up: give less of either, or a text by --data",
                      batch, time_steps, characters, kMostCharactersOfAStep));
}

void benchmark_train(const TrainBenchmarkSettings& settings, Communicator& world) {
  settings.validate();
  from_root(world, [&] {
    require_writable(settings.json, settings.data);
    return std::string();
  });
  TrainBenchmark(settings, world).run();
}

}  // namespace lamina
