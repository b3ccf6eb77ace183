// A text read once and given to every rank: vocabulary, training tokens, held-out tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "io/text.h"
#include "launch/configuration.h"
#include "runtime/communicator.h"

namespace lamina {

struct Corpus {
  Vocabulary vocabulary;  ///< of the training text
  std::vector<std::int32_t> training, validation;
  std::size_t left_out = 0;  ///< held-out characters that the training text does not have
  std::string digest;        ///< of the training text's code points
};

/// `characters` random ones of `vocabulary` different ones, for measurements; nothing held out.
Corpus made_up_corpus(int vocabulary, std::int64_t characters);

/// Throws UserError where too little was held out for a prediction.
void require_held_out_text(const DataSettings& settings, const Corpus& corpus);

/// Rank 0 reads. Collective; throws UserError on every rank alike.
Corpus read_corpus(const DataSettings& settings, Communicator& world);

}  // namespace lamina
