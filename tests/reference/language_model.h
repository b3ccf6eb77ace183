// The whole language model in plain double loops: embedding, LSTM layers, dropout between them, softmax
// cross-entropy. V vocabulary, E embedding; else as in tests/reference/lstm.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/random.h"
#include "tests/reference/lstm.h"

namespace lamina::reference {

/// out[t, b] = table[tokens[t, b]]; tokens: [T, B], table: [V, width].
Vector embed(const Vector& table, const std::vector<int>& tokens, int width);
/// Gradient by the table.
Vector embed_backward(const Vector& d_output, const std::vector<int>& tokens, int vocabulary, int width);

/// Factors [T, B, width], 0 or 1 / (1 - probability), as runtime/backend.h's DropoutMask defines them.
Vector dropout_factors(const RandomStream& stream, std::uint64_t step, double probability, bool variational,
                       int time_steps, int batch, int width);
/// Element by element; empty factors change nothing.
Vector dropped(const Vector& x, const Vector& factors);

struct SoftmaxInput {
  int classes = 0;
  Vector x;                  ///< [N, H]
  Vector W;                  ///< [V, H]
  Vector bias;               ///< [V]
  std::vector<int> targets;  ///< [N], -1 where nothing is predicted
};

struct SoftmaxResult {
  Vector logits;            ///< [N, V]
  Vector losses;            ///< [N], -ln p(target), 0 where nothing is predicted
  Vector d_x, d_W, d_bias;  ///< gradients of scale * the sum of losses
};

SoftmaxResult softmax_cross_entropy(const SoftmaxInput& input, double scale);

struct LanguageModelShape {
  int vocabulary = 0, embedding = 0, hidden = 0, layers = 1;
  Normalization normalization = Normalization::layer;
  double epsilon = 1e-5;

  LstmShape layer(int index) const;
};

/// Parameters, or their gradients.
struct LanguageModelParameters {
  Vector table;  ///< [V, E]
  std::vector<LstmParameters> layers;
  Vector output_W;     ///< [V, H]
  Vector output_bias;  ///< [V]

  /// Every tensor by the name that the program gives it: "embedding/table", "lstm0/W_x", …, "output/W",
  /// "output/bias".
  std::vector<std::pair<std::string, Vector*>> tensors();
};

LanguageModelParameters zero_parameters(const LanguageModelShape& shape);

struct LanguageModelInput {
  int time_steps = 0, batch = 0;
  std::vector<int> tokens, targets;      ///< [T, B]
  std::vector<int> lengths;              ///< [B], or empty
  std::vector<Vector> h_first, c_first;  ///< per layer [B, H]; empty: zeros
  std::vector<Vector> dropout;  ///< factors per place: after the embedding, after each layer; empty: none
};

struct LanguageModelResult {
  Vector losses;                       ///< [T, B]
  Vector logits;                       ///< [T, B, V]
  std::vector<Vector> h_last, c_last;  ///< per layer [B, H]
  LanguageModelParameters gradients;   ///< of scale * the sum of losses

  double loss() const;  ///< sum of losses
};

LanguageModelResult language_model(const LanguageModelShape& shape, const LanguageModelParameters& parameters,
                                   const LanguageModelInput& input, double scale);

}  // namespace lamina::reference
