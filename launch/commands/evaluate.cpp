#include "launch/commands/evaluate.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/metrics.h"
#include "io/text.h"
#include "launch/agreement.h"
#include "launch/commands/output.h"
#include "launch/evaluate.h"

namespace lamina {
namespace {

/// Rank 0 reads.
std::vector<std::int32_t> read_tokens(const std::string& file, const Vocabulary& vocabulary,
                                      Communicator& world) {
  const std::string bytes = from_root(world, [&] { return encode_utf8(read_text(file)); });
  return vocabulary.encode(decode_utf8(bytes, file), file);
}

std::string as_json(const EvaluationResult& result, const TrainedModel& trained) {
  const nlohmann::ordered_json record{{"loss", result.loss},
                                      {"bits_per_character", bits_per_character(result.loss)},
                                      {"perplexity", std::exp(result.loss)},
                                      {"predictions", result.predictions},
                                      {"checkpoint", trained.file.string()},
                                      {"step", trained.record.step}};
  return record.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

std::string as_lines(const EvaluationResult& result, const TrainedModel& trained) {
  return fmt::format(
      "checkpoint          {}, step {}\n"
      "predictions         {}\n"
      "loss                {:.4f} nats\n"
      "bits per character  {:.4f}\n"
      "perplexity          {:.4f}\n",
      trained.file.string(), trained.record.step, result.predictions, result.loss,
      bits_per_character(result.loss), std::exp(result.loss));
}

}  // namespace

void EvaluateSettings::validate() const {
  model.validate();
  require(!data.empty(), "--data is missing: give the text to predict, a file in UTF-8");
  validate_step(batch, time_steps);
}

void evaluate(const EvaluateSettings& settings, Communicator& world) {
  settings.validate();
  const TrainedModel trained = load_trained_model(
      settings.model.checkpoint, settings.model.load(settings.batch, settings.time_steps), world);
  const EvaluationLanes lanes(read_tokens(settings.data, trained.vocabulary, world), settings.batch,
                              settings.time_steps);

  const EvaluationResult result =
      evaluate_text(*trained.model, lanes, *trained.backend, *trained.grid, settings.time_steps);

  if (!std::isfinite(result.loss)) {
    throw UserError(fmt::format("{} predicts {} with a loss that is not finite ({}): its training diverged, "
                                "try an earlier checkpoint",
                                trained.file.string(), settings.data, result.loss),
                    ExitCode::non_finite_loss);
  }
  if (world.rank() == 0) print(settings.json ? as_json(result, trained) : as_lines(result, trained));
}

}  // namespace lamina
