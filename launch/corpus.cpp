#include "launch/corpus.h"

#include <algorithm>
#include <iterator>

#include "launch/agreement.h"

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

  Corpus corpus{std::move(vocabulary), {}, {}, split.validation.size() - held_out.size()};
  corpus.training = corpus.vocabulary.encode(split.training, settings.data);
  corpus.validation = corpus.vocabulary.encode(held_out, settings.data);
  return corpus;
}

}  // namespace lamina
