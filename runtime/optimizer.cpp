#include "runtime/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/error.h"
#include "runtime/trace.h"
#include "runtime/tree.h"

namespace lamina {
namespace {

void require(bool allowed, const char* flag, double value, const char* range) {
  if (!allowed) throw UserError(fmt::format("--{} {} is out of range: give {}", flag, value, range));
}

double scheduled(const OptimizerSettings& s, std::int64_t step, std::int64_t total) {
  const auto past_warmup = static_cast<double>(std::max<std::int64_t>(0, step - s.warmup));
  if (s.schedule == "constant") return s.learning_rate;
  if (s.schedule == "step") {
    const auto decays = static_cast<double>((step - 1) / s.decay_every);
    return s.learning_rate * std::pow(s.decay_factor, decays);
  }
  if (s.schedule == "inverse-sqrt") {
    const auto base = static_cast<double>(std::max<std::int64_t>(1, s.warmup));
    return s.learning_rate * std::sqrt(base / std::max(base, static_cast<double>(step)));
  }
  check(s.schedule == "cosine", "unknown learning-rate schedule " + s.schedule);
  const auto span = static_cast<double>(std::max<std::int64_t>(1, total - s.warmup));
  const double progress = std::min(1.0, past_warmup / span);
  return s.final_learning_rate +
         (s.learning_rate - s.final_learning_rate) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace

void OptimizerSettings::validate() const {
  const auto finite = [](double x) { return std::isfinite(x); };
  require(finite(learning_rate) && learning_rate > 0, "learning-rate", learning_rate, "a number above 0");
  require(momentum >= 0 && momentum < 1, "momentum", momentum, "a number from 0 to below 1");
  require(beta1 >= 0 && beta1 < 1, "beta1", beta1, "a number from 0 to below 1");
  require(beta2 >= 0 && beta2 < 1, "beta2", beta2, "a number from 0 to below 1");
  require(finite(epsilon) && epsilon > 0, "epsilon", epsilon, "a number above 0");
  require(finite(weight_decay) && weight_decay >= 0, "weight-decay", weight_decay, "0 or a number above");
  require(finite(clip_norm) && clip_norm >= 0, "clip-norm", clip_norm, "0 (off) or a number above");
  require(warmup >= 0, "warmup", static_cast<double>(warmup), "0 or a number of steps");
  require(decay_every >= 1, "decay-every", static_cast<double>(decay_every), "1 step or more");
  require(decay_factor > 0 && decay_factor <= 1, "decay-factor", decay_factor, "a number above 0, at most 1");
  require(finite(final_learning_rate) && final_learning_rate >= 0, "final-learning-rate", final_learning_rate,
          "0 or a number above");
}

double learning_rate_at(const OptimizerSettings& settings, std::int64_t step, std::int64_t total) {
  const double rate = scheduled(settings, step, total);
  if (step >= settings.warmup) return rate;
  return rate * static_cast<double>(step) / static_cast<double>(settings.warmup);
}

Optimizer::Optimizer(const OptimizerSettings& settings, const ParameterTable& table, Backend& backend)
    : settings_(settings), backend_(backend) {
  const auto size = static_cast<std::size_t>(table.local_size());
  if (settings.optimizer == "sgd") {
    slots_.push_back({"momentum", backend.allocate(size)});
  } else {
    slots_.push_back({"first_moment", backend.allocate(size)});
    slots_.push_back({"second_moment", backend.allocate(size)});
  }
}

void Optimizer::update(std::int64_t step, double learning_rate, float gradient_scale, ParameterTable& table) {
  const Span span(SpanKind::optimizer, "optimizer");
  const auto rate = static_cast<float>(learning_rate);
  // Of the rounded beta that the moments decay by.
  const auto correction = [step](double beta) {
    return static_cast<float>(1 - std::pow(static_cast<float>(beta), static_cast<double>(step)));
  };
  AdamStep adam{.learning_rate = rate,
                .beta1 = static_cast<float>(settings_.beta1),
                .beta2 = static_cast<float>(settings_.beta2),
                .epsilon = static_cast<float>(settings_.epsilon),
                .weight_decay = 0,
                .decoupled = settings_.optimizer == "adamw",
                .correction1 = correction(settings_.beta1),
                .correction2 = correction(settings_.beta2),
                .gradient_scale = gradient_scale};
  for (int i = 0; i < static_cast<int>(table.all().size()); ++i) {
    const Parameter& parameter = table[i];
    const auto decay = static_cast<float>(parameter.decay ? settings_.weight_decay : 0);
    const auto slot = [&](std::size_t s) {
      return slots_[s].values.view(static_cast<std::size_t>(parameter.offset),
                                   static_cast<std::size_t>(parameter.local_size));
    };
    if (settings_.optimizer == "sgd") {
      backend_.sgd(rate, static_cast<float>(settings_.momentum), decay, gradient_scale, table.gradient(i),
                   slot(0), table.value(i));
    } else {
      adam.weight_decay = decay;
      backend_.adam(adam, table.gradient(i), slot(0), slot(1), table.value(i));
    }
  }
}

double global_gradient_norm(ParameterTable& table, Backend& backend, Communicator& model_axis) {
  const Span span(SpanKind::optimizer, "gradient norm");
  std::vector<std::span<const float>> blocks;  // [parameter, block of this rank]
  for (int i = 0; i < static_cast<int>(table.all().size()); ++i) {
    const Parameter& parameter = table[i];
    std::span<float> rest = table.gradient(i);
    for (int k = parameter.blocks.first; k < parameter.blocks.first + parameter.blocks.local; ++k) {
      const auto size = static_cast<std::size_t>(parameter.blocked.block_size(k));
      blocks.push_back(rest.first(size));
      rest = rest.subspan(size);
    }
  }

  const std::vector<double> squares = backend.sums_of_squares(blocks);
  std::vector<double> all(squares.size() * static_cast<std::size_t>(model_axis.size()));
  model_axis.all_gather(std::span<const double>(squares), std::span(all));
  double total = 0;
  std::size_t offset = 0;
  for (const Parameter& parameter : table.all()) {
    const auto local = static_cast<std::size_t>(parameter.blocks.local);
    total += tree_sum(static_cast<std::size_t>(parameter.blocks.count), [&](std::size_t block) {
      return all[block / local * squares.size() + offset + block % local];
    });
    offset += local;
  }
  return std::sqrt(total);
}

float clip_scale(double norm, double clip_norm) {
  return clip_norm > 0 && norm > clip_norm ? static_cast<float>(clip_norm / norm) : 1.0f;
}

}  // namespace lamina
