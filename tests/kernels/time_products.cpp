// Times a time step's two products with W_h as the layer on CPUs makes them, beside the same products by
// packed oneDNN, cut in the fastest way, in turns on one thread. In f32.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/product_series.h"
#include "kernels/cpu/recurrence_products.h"
#include "launch/commands/benchmark/numbers.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/benchmark/stopwatch.h"
#include "launch/commands/benchmark/table.h"
#include "runtime/communicator.h"
#include "runtime/error.h"
#include "runtime/random.h"

namespace lamina {
namespace {

constexpr int kUnitBlocks = 8;

std::vector<float> values_of(const char* name, std::size_t count) {
  const RandomStream random(1, name);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = random.uniform(0, i) - 0.5f;
  return values;
}

RecurrenceShape shape_of(int hidden, int rows) {
  return {.inputs = 1,
          .hidden = hidden,
          .max_time_steps = 1,
          .tiling = {Share::of(1, 0, 1), Share::of(kUnitBlocks, 0, 1), rows}};
}

/// Microseconds a call, of every sample.
struct Times {
  std::vector<double> own, library;
};

/// h W_h^T and da_h W_h, h [R, H] and da_h [R, 4H].
class StepProducts {
 public:
  StepProducts(int hidden, int rows)
      : hidden_(static_cast<std::size_t>(hidden)),
        rows_(static_cast<std::size_t>(rows)),
        products_(shape_of(hidden, rows), *alone_),
        h_(values_of("h", rows_ * hidden_)),
        da_(values_of("da", 4 * h_.size())),
        a_(da_.size()),
        d_h_(h_.size()),
        forward_(make_cpu_product_series({{.m = rows, .n = 4 * hidden, .k = hidden, .count = 1}}, 1)),
        backward_(make_cpu_product_series({{.m = rows, .n = hidden, .k = 4 * hidden, .count = 1}}, 1)) {
    const std::vector<float> W_x(4 * hidden_), W_h = values_of("W_h", 4 * hidden_ * hidden_);
    products_.set_weights(W_x, W_h, 1);
  }

  void measure() {
    forward_times.own.push_back(microseconds([&] {
      products_.set_state(0, h_.data());
      for (std::size_t k = 0; k < kUnitBlocks; ++k) products_.recurrent(0, k, &a_[k * tile()]);
    }));
    forward_times.library.push_back(microseconds([&] { forward_->run(); }));
    backward_times.own.push_back(microseconds([&] {
      for (std::size_t part = 0; part < products_.recurrent_parts(); ++part)
        products_.recurrent_backward(part, da_.data(), tile(), d_h_.data());
    }));
    backward_times.library.push_back(microseconds([&] { backward_->run(); }));
  }

  Times forward_times, backward_times;

 private:
  std::size_t tile() const { return a_.size() / kUnitBlocks; }

  template <class Work>
  double microseconds(const Work& work) {
    constexpr int kCalls = 20;
    return 1e6 / kCalls * seconds_of(*alone_, [&] {
             for (int i = 0; i < kCalls; ++i) work();
           });
  }

  std::size_t hidden_, rows_;
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  RecurrenceProducts products_;
  std::vector<float> h_, da_, a_, d_h_;
  std::unique_ptr<ProductSeries> forward_, backward_;
};

struct Plan {
  std::string hidden = "512,1024", rows = "8,16,32,64";
  int samples = 40;
};

void run(const Plan& plan) {
  std::vector<std::unique_ptr<StepProducts>> all;
  Table table({"product", "units", "lanes", "us", "GF/s", "oneDNN", "GF/s", "rate to oneDNN's"});
  for (const int hidden : numbers_of("hidden", plan.hidden))
    for (const int rows : numbers_of("rows", plan.rows)) {
      if (hidden % kUnitBlocks != 0)
        throw UserError(fmt::format("--hidden {} cannot be split over {} blocks: give a multiple of {}",
                                    hidden, kUnitBlocks, kUnitBlocks));
      StepProducts products(hidden, rows);
      for (int sample = 0; sample < plan.samples; ++sample) products.measure();
      const double flops = 8.0 * hidden * hidden * rows;
      const auto add = [&](const char* name, const Times& times) {
        const double own = median(times.own), library = median(times.library);
        table.add({name, fmt::to_string(hidden), fmt::to_string(rows), fmt::format("{:.1f}", own),
                   fmt::format("{:.1f}", flops / own / 1e3), fmt::format("{:.1f}", library),
                   fmt::format("{:.1f}", flops / library / 1e3), fmt::format("{:.2f}", library / own)});
      };
      add("forward", products.forward_times);
      add("backward", products.backward_times);
    }
  fmt::print("products of a time step with W_h, one thread, f32, medians of {} samples in turn\n{}",
             plan.samples, table.text());
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  CLI::App app("Times the products of a time step with W_h beside those of packed oneDNN, on one thread.");
  lamina::Plan plan;
  app.add_option("--hidden", plan.hidden, "units: one number or several")->capture_default_str();
  app.add_option("--rows", plan.rows, "lanes: one number or several")->capture_default_str();
  app.add_option("--samples", plan.samples, "samples of 20 calls")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  try {
    app.parse(argc, argv);
    lamina::run(plan);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "time_products: %s\n", error.what());
    return 1;
  }
  return 0;
}
