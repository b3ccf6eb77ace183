#include <algorithm>
#include <stdexcept>

#include "io/text.h"
#include "runtime/error.h"
#include "tests/fuzz/harness.h"

namespace lamina::fuzz {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

Vocabulary vocabulary_of(std::vector<char32_t> text) {
  std::ranges::sort(text);
  const auto repeats = std::ranges::unique(text);
  text.erase(repeats.begin(), repeats.end());
  return Vocabulary(std::move(text));
}

template <class Lanes>
void fetch_some(const Lanes& lanes, std::int64_t chunks, int batch, int size) {
  Tiling tiling;
  tiling.groups = Share::of(1, 0, 1);
  tiling.rows = batch;
  LaneBatch fetched;
  for (std::int64_t chunk = 0; chunk < chunks && chunk < 4; ++chunk) {
    lanes.fetch(chunk, tiling, fetched);
    for (const std::int32_t token : fetched.tokens)
      require(token >= 0 && token < size, "a token of no character");
  }
}

}  // namespace

void text(Bytes bytes) try {
  Choices choose(bytes.first(std::min<std::size_t>(2, bytes.size())));
  const int batch = 1 + choose.byte() % 8, time_steps = 1 + choose.byte() % 16;
  const MemoryFile file(bytes);
  const std::vector<char32_t> characters = read_text(file.path());
  const std::string back = encode_utf8(characters);
  require(
      std::ranges::equal(back, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())),
      "other bytes came back");

  const Vocabulary vocabulary = vocabulary_of(characters);
  if (time_steps == 16)  // takes a hundred times longer than all else
    require(Vocabulary::of(characters).characters() == vocabulary.characters(),
            "another vocabulary came out");

  const std::vector<std::int32_t> tokens = vocabulary.encode(characters, "text");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    require(vocabulary.character(tokens[i]) == characters[i], "another character came back");
  const EvaluationLanes evaluation(tokens, batch, time_steps);
  fetch_some(evaluation, evaluation.chunks(), batch, vocabulary.size());
  const TrainingLanes training(tokens, batch, time_steps);
  fetch_some(training, training.chunks_per_epoch(), batch, vocabulary.size());
} catch (const UserError&) {
}

}  // namespace lamina::fuzz
