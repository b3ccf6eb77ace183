#include "tests/reference/language_model.h"

#include <cmath>
#include <numeric>

namespace lamina::reference {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

Vector or_none(const std::vector<Vector>& per_layer, std::size_t index) {
  return per_layer.empty() ? Vector() : per_layer[index];
}

}  // namespace

Vector embed(const Vector& table, const std::vector<int>& tokens, int width) {
  Vector out;
  for (const int token : tokens)
    for (int j = 0; j < width; ++j) out.push_back(table[size(token * width + j)]);
  return out;
}

Vector embed_backward(const Vector& d_output, const std::vector<int>& tokens, int vocabulary, int width) {
  Vector d_table(size(vocabulary * width));
  for (std::size_t n = 0; n < tokens.size(); ++n)
    for (int j = 0; j < width; ++j)
      d_table[size(tokens[n] * width + j)] += d_output[n * size(width) + size(j)];
  return d_table;
}

Vector dropout_factors(const RandomStream& stream, std::uint64_t step, double probability, bool variational,
                       int time_steps, int batch, int width) {
  Vector factors;
  for (int t = 0; t < time_steps; ++t)
    for (int b = 0; b < batch; ++b)
      for (int j = 0; j < width; ++j) {
        const int index = (b * time_steps + (variational ? 0 : t)) * width + j;
        const bool kept =
            stream.uniform(step, static_cast<std::uint64_t>(index)) >= static_cast<float>(probability);
        factors.push_back(kept ? 1 / (1 - probability) : 0);
      }
  return factors;
}

Vector dropped(const Vector& x, const Vector& factors) {
  Vector out = x;
  for (std::size_t i = 0; i < factors.size(); ++i) out[i] *= factors[i];
  return out;
}

SoftmaxResult softmax_cross_entropy(const SoftmaxInput& in, double scale) {
  const std::size_t V = size(in.classes), N = in.targets.size(), H = in.x.size() / N;
  SoftmaxResult r{Vector(N * V), Vector(N), Vector(N * H), Vector(V * H), Vector(V)};
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t v = 0; v < V; ++v) {
      r.logits[n * V + v] = in.bias[v];
      for (std::size_t k = 0; k < H; ++k) r.logits[n * V + v] += in.W[v * H + k] * in.x[n * H + k];
    }
    if (in.targets[n] < 0) continue;

    double sum = 0;
    for (std::size_t v = 0; v < V; ++v) sum += std::exp(r.logits[n * V + v]);
    r.losses[n] = std::log(sum) - r.logits[n * V + size(in.targets[n])];
    for (std::size_t v = 0; v < V; ++v) {
      const double p = std::exp(r.logits[n * V + v]) / sum;
      const double d_logit = scale * (p - (v == size(in.targets[n]) ? 1 : 0));
      r.d_bias[v] += d_logit;
      for (std::size_t k = 0; k < H; ++k) {
        r.d_W[v * H + k] += d_logit * in.x[n * H + k];
        r.d_x[n * H + k] += d_logit * in.W[v * H + k];
      }
    }
  }
  return r;
}

LstmShape LanguageModelShape::layer(int index) const {
  return {index == 0 ? embedding : hidden, hidden, normalization, epsilon};
}

std::vector<std::pair<std::string, Vector*>> LanguageModelParameters::tensors() {
  std::vector<std::pair<std::string, Vector*>> all = {{"embedding/table", &table}};
  for (std::size_t l = 0; l < layers.size(); ++l)
    for (const auto& [name, values] : layers[l].tensors())
      all.emplace_back("lstm" + std::to_string(l) + "/" + name, values);
  all.emplace_back("output/W", &output_W);
  all.emplace_back("output/bias", &output_bias);
  return all;
}

LanguageModelParameters zero_parameters(const LanguageModelShape& shape) {
  LanguageModelParameters p;
  p.table.resize(size(shape.vocabulary * shape.embedding));
  for (int l = 0; l < shape.layers; ++l) p.layers.push_back(zero_parameters(shape.layer(l)));
  p.output_W.resize(size(shape.vocabulary * shape.hidden));
  p.output_bias.resize(size(shape.vocabulary));
  return p;
}

double LanguageModelResult::loss() const { return std::accumulate(losses.begin(), losses.end(), 0.0); }

LanguageModelResult language_model(const LanguageModelShape& shape, const LanguageModelParameters& p,
                                   const LanguageModelInput& input, double scale) {
  const std::size_t L = size(shape.layers);
  LanguageModelResult result;
  std::vector<LstmInput> inputs;
  std::vector<LstmOutput> outputs;

  Vector x = dropped(embed(p.table, input.tokens, shape.embedding), or_none(input.dropout, 0));
  for (std::size_t l = 0; l < L; ++l) {
    inputs.push_back({input.time_steps, input.batch, x, or_none(input.h_first, l), or_none(input.c_first, l),
                      input.lengths});
    outputs.push_back(lstm_forward(shape.layer(static_cast<int>(l)), p.layers[l], inputs[l]));
    result.h_last.push_back(outputs[l].h_last);
    result.c_last.push_back(outputs[l].c_last);
    x = dropped(outputs[l].h, or_none(input.dropout, l + 1));
  }
  SoftmaxResult top =
      softmax_cross_entropy({shape.vocabulary, x, p.output_W, p.output_bias, input.targets}, scale);
  result.losses = top.losses;
  result.logits = top.logits;

  LanguageModelParameters& d = result.gradients;
  d.layers.resize(L);
  d.output_W = top.d_W;
  d.output_bias = top.d_bias;
  Vector dx = top.d_x;
  for (std::size_t l = L; l-- > 0;) {
    const Vector dh = dropped(dx, or_none(input.dropout, l + 1));
    LstmGradients layer =
        lstm_backward(shape.layer(static_cast<int>(l)), p.layers[l], inputs[l], outputs[l], dh);
    d.layers[l] = layer.parameters;
    dx = layer.x;
  }
  d.table =
      embed_backward(dropped(dx, or_none(input.dropout, 0)), input.tokens, shape.vocabulary, shape.embedding);
  return result;
}

}  // namespace lamina::reference
