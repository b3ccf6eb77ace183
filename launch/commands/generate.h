// lamina generate: text from a trained model, character by character.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "launch/commands/trained_model.h"
#include "runtime/communicator.h"

namespace lamina {

struct GenerateSettings {
  TrainedModelSettings model;
  std::string prompt;
  std::int64_t length = 200;
  double temperature = 1;
  std::int64_t seed = 1;

  template <class Visitor>
  void visit(Visitor& v) {
    model.visit(v);
    v("prompt", prompt, "text to go on from (none: from the beginning of a line)");
    v("length", length, "characters to generate");
    v("temperature", temperature, "below 1: likelier characters more often; 0: always the likeliest");
    v("seed", seed, "seed of the choices");
  }
  void validate() const;
};

/// The token that `u` in [0, 1) picks from softmax(logits / temperature) by inverse cumulative distribution;
/// at temperature 0 the first of the largest logits. Logits must be finite.
std::int32_t choose_token(std::span<const float> logits, double temperature, double u);

/// Prints prompt and text. The same text for a seed on any number of ranks. Collective.
void generate(const GenerateSettings& settings, Communicator& world);

}  // namespace lamina
