#include "launch/commands/benchmark.h"

#include "launch/commands/benchmark/checkpoint.h"
#include "launch/commands/benchmark/exchange.h"
#include "launch/commands/benchmark/layer.h"
#include "launch/commands/benchmark/train.h"

namespace lamina {

void add_benchmarks(CLI::App& parent, Actions& actions) {
  CLI::App& benchmark = add_command(parent, "benchmark", "measure this machine");
  add_command(benchmark, "layer", "a recurrent layer, forward and backward, against its matrix products",
              actions, &benchmark_layer);
  add_command(benchmark, "train", "training: tokens per second, and where the time goes", actions,
              &benchmark_train);
  add_command(benchmark, "scaling", "training on one process grid after another; starts mpirun itself");
  add_command(benchmark, "exchange", "times of the collectives, beside the library's own", actions,
              &benchmark_exchange);
  add_command(benchmark, "checkpoint", "rates of writing and reading checkpoints", actions,
              &benchmark_checkpoint);
}

}  // namespace lamina
