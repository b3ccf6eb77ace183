#include "launch/commands/generate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "launch/commands/output.h"
#include "runtime/random.h"

namespace lamina {
namespace {

constexpr int kPromptChunk = 64;  // characters of the prompt that the model reads at a time

/// A model with the state of one lane: reads characters, then tells how likely each next one is.
class Reader {
 public:
  explicit Reader(const TrainedModel& trained)
      : model_(*trained.model),
        state_(*trained.backend, model_.settings().layers, model_.settings().hidden, trained.grid->tiling()),
        logits_(static_cast<std::size_t>(trained.vocabulary.size())) {}

  void read(std::span<const std::int32_t> tokens) {
    while (!tokens.empty()) {
      const auto chunk = tokens.first(std::min<std::size_t>(tokens.size(), kPromptChunk));
      const std::vector<std::int32_t> no_targets(chunk.size(), -1);
      const int steps = static_cast<int>(chunk.size());
      model_.forward({steps, chunk, no_targets, {}}, state_, 0, /*dropout_step=*/std::nullopt);
      model_.logits(steps - 1, logits_);
      tokens = tokens.subspan(chunk.size());
    }
  }

  /// [V], after the last character read.
  std::span<const float> logits() const { return logits_; }

 private:
  LanguageModel& model_;
  CarriedState state_;
  std::vector<float> logits_;
};

/// Where a text without a prompt begins: after the end of a line, if the model knows lines.
char32_t first_character(const Vocabulary& vocabulary) {
  const auto& known = vocabulary.characters();
  return std::binary_search(known.begin(), known.end(), U'\n') ? U'\n' : known.front();
}

/// Uniform in [0, 1), multiples of 2^-53, for character `index` of the text.
double uniform(const RandomStream& stream, std::int64_t index) {
  const PhiloxBlock bits = stream.bits(static_cast<std::uint64_t>(index), 0);
  return ((bits[0] >> 5) * 0x1p26 + (bits[1] >> 6)) * 0x1p-53;
}

void require_finite(std::span<const float> logits, const TrainedModel& trained) {
  if (std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) return;
  throw UserError(
      fmt::format("{} gives predictions that are not finite: its training diverged, try an earlier "
                  "checkpoint",
                  trained.file.string()),
      ExitCode::non_finite_loss);
}

}  // namespace

void GenerateSettings::validate() const {
  model.validate();
  at_least("length", length, 0);
  at_least("seed", seed, 0);
  require(temperature >= 0, fmt::format("--temperature must be at least 0, not {}", temperature));
}

std::int32_t choose_token(std::span<const float> logits, double temperature, double u) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (temperature == 0) return static_cast<std::int32_t>(likeliest - logits.begin());

  std::vector<double> cumulative;
  double total = 0;
  for (const float logit : logits) {
    total += std::exp((static_cast<double>(logit) - *likeliest) / temperature);
    cumulative.push_back(total);
  }
  const auto chosen = std::upper_bound(cumulative.begin(), cumulative.end(), u * total);  // u * total < total
  return static_cast<std::int32_t>(chosen - cumulative.begin());
}

void generate(const GenerateSettings& settings, Communicator& world) {
  settings.validate();
  require(world.size() == settings.model.model_parallel,
          fmt::format("generate runs on --model-parallel ranks: there are {}, and --model-parallel is {}",
                      world.size(), settings.model.model_parallel));
  std::vector<char32_t> prompt = decode_utf8(settings.prompt, "--prompt");
  const TrainedModel trained =
      load_trained_model(settings.model.checkpoint, settings.model.load(1, kPromptChunk), world);
  if (prompt.empty()) prompt.push_back(first_character(trained.vocabulary));
  Reader reader(trained);
  reader.read(trained.vocabulary.encode(prompt, "--prompt"));

  const bool is_root = world.rank() == 0, is_watched = isatty(STDOUT_FILENO) != 0;
  const RandomStream choices(static_cast<std::uint64_t>(settings.seed), "generate");
  if (is_root) print(settings.prompt);
  for (std::int64_t i = 0; i < settings.length; ++i) {
    require_finite(reader.logits(), trained);
    std::int32_t token = choose_token(reader.logits(), settings.temperature, uniform(choices, i));
    world.broadcast(std::span(&token, 1), 0);  // exp() may differ between hosts
    const char32_t character = trained.vocabulary.character(token);
    if (is_root) print(encode_utf8({&character, 1}));
    if (is_root && is_watched) std::fflush(stdout);
    reader.read({&token, 1});
  }
  if (is_root) print("\n");
}

}  // namespace lamina
