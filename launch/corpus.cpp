#include "launch/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "io/digest.h"
#include "launch/agreement.h"
#include "launch/setting.h"
#include "runtime/random.h"

namespace lamina {

Corpus read_corpus(const DataSettings& settings, Communicator& world) {
  const std::string bytes = from_root(world, [&] { return encode_utf8(read_text(settings.data)); });
  const std::vector<char32_t> text = decode_utf8(bytes, settings.data);
  const TextSplit split = split_text(text, settings.validation_fraction);
  Vocabulary vocabulary = Vocabulary::of(split.training);

  const auto known = [&](char32_t c) {
    return std::binary_search(vocabulary.characters().begin(), vocabulary.characters().end(), c);
  };
  std::vector<char32_t> held_out;
  std::copy_if(split.validation.begin(), split.validation.end(), std::back_inserter(held_out), known);

  Corpus corpus{std::move(vocabulary),
                {},
                {},
                split.validation.size() - held_out.size(),
                to_hex(digest_of(std::as_bytes(split.training)))};
  corpus.training = corpus.vocabulary.encode(split.training, settings.data);
  corpus.validation = corpus.vocabulary.encode(held_out, settings.data);
  return corpus;
}

void require_held_out_text(const DataSettings& settings, const Corpus& corpus) {
  const std::size_t held_out = corpus.validation.size();
  require(
      held_out >= 2,
      fmt::format("--validation-fraction {} holds out {} characters of {} and a validation needs at least "
                  "2: give more text or a larger share, or --validation-fraction 0 for no validation",
                  settings.validation_fraction, held_out, settings.data));
}

Corpus made_up_corpus(int vocabulary, std::int64_t characters) {
  std::vector<char32_t> alphabet;
  for (int i = 0; i < vocabulary; ++i) alphabet.push_back(U'a' + static_cast<char32_t>(i));
  Corpus corpus{Vocabulary::of(alphabet), {}, {}, 0, ""};
  const RandomStream random(1, "text");
  for (std::int64_t i = 0; i < characters; ++i)
    corpus.training.push_back(static_cast<std::int32_t>(random.bits(0, static_cast<std::uint64_t>(i))[0] %
                                                        static_cast<std::uint32_t>(vocabulary)));
  return corpus;
}

}  // namespace lamina
