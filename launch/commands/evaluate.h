// lamina evaluate: how well a trained model predicts a text.
#pragma once

#include <string>

#include "launch/commands/trained_model.h"
#include "runtime/communicator.h"

namespace lamina {

struct EvaluateSettings {
  TrainedModelSettings model;
  std::string data;
  int batch = 1;
  int time_steps = 64;
  bool json = false;

  template <class Visitor>
  void visit(Visitor& v) {
    model.visit(v);
    v("data", data, "text to predict, UTF-8");
    v("batch", batch, "lanes into which the text is cut; each begins with a zero state");
    v("time-steps", time_steps, "characters of each lane at a time; no effect on the result");
    v("json", json, "one JSON object on one line");
  }
  void validate() const;
};

/// Prints loss, bits per character, perplexity and the number of predictions. Collective.
void evaluate(const EvaluateSettings& settings, Communicator& world);

}  // namespace lamina
