// lamina benchmark exchange: how long the ranks take to tell each other what a training step needs.
#pragma once

#include <string>

#include "launch/setting.h"
#include "runtime/communicator.h"

namespace lamina {

struct ExchangeBenchmarkSettings {
  int samples = 40;
  int calls = 50;
  std::string json;

  template <class Visitor>
  void visit(Visitor& v) {
    v("samples", samples, "how often each exchange is timed, all of them in turn");
    v("calls", calls, "calls in a row that one sample is the mean of; fewer where they take long");
    v("json", json, "also write the figures to this file");
  }
  void validate() const;
};

/// Times the collectives of `world` at the sizes of a training step and, in turn with each, the library's own
/// and a copy of the same bytes; rank 0 prints a table. Collective.
void benchmark_exchange(const ExchangeBenchmarkSettings& settings, Communicator& world);

}  // namespace lamina
