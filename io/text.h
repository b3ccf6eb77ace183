// Character-level text: UTF-8 in, Unicode code points, a vocabulary, and the lanes of a batch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tiling.h"

namespace lamina {

/// The code points of UTF-8 `bytes`. Throws UserError naming `source` and the byte offset of the first
/// invalid sequence (overlong forms, surrogates and values above U+10FFFF included).
std::vector<char32_t> decode_utf8(std::string_view bytes, const std::string& source);
std::string encode_utf8(std::span<const char32_t> text);

/// The bytes of a regular file. Throws UserError, asking for `wanted` ("a UTF-8 text file"), when it is
/// missing, unreadable, a directory, pipe or device, larger than `limit` bytes or than memory, or changes
/// meanwhile.
std::string read_bytes(const std::filesystem::path& file, std::uintmax_t limit, const std::string& wanted);

/// The text of a file of at most 4 GiB, which takes five times its size of memory meanwhile. Throws UserError
/// as read_bytes(), and when it is empty or not UTF-8.
std::vector<char32_t> read_text(const std::filesystem::path& file);

/// The different characters of a text in order of code point; a token is an index into it.
class Vocabulary {
 public:
  static Vocabulary of(std::span<const char32_t> text);
  explicit Vocabulary(std::vector<char32_t> characters);  ///< ascending, without repeats; else UserError

  int size() const { return static_cast<int>(characters_.size()); }
  const std::vector<char32_t>& characters() const { return characters_; }
  char32_t character(int token) const { return characters_[static_cast<std::size_t>(token)]; }
  /// Throws UserError naming the first character that is not in the vocabulary, its position and `source`.
  std::vector<std::int32_t> encode(std::span<const char32_t> text, const std::string& source) const;

 private:
  std::vector<char32_t> characters_;
};

/// Training text and held-out text: the last floor(fraction * N) characters, cut from the end.
struct TextSplit {
  std::span<const char32_t> training, validation;
};
TextSplit split_text(std::span<const char32_t> text, double validation_fraction);

/// One chunk of every lane of this rank. Layout [groups, T, rows], lanes ascending: group g, row r is lane
/// (groups.first + g) * rows + r.
struct LaneBatch {
  int time_steps = 0;
  bool first = false;                 ///< lanes begin here: start from a zero state
  std::vector<std::int32_t> tokens;   ///< [D, T, R]
  std::vector<std::int32_t> targets;  ///< [D, T, R]; -1: no prediction
  std::vector<std::int32_t> lengths;  ///< [D, R] valid steps of each lane; empty: all T
  std::int64_t predictions = 0;       ///< of all lanes of the run, not only this rank's
};

/// Training lanes: with N tokens and B lanes, lane b starts at b * floor(N / B) and has floor(N / B) tokens;
/// chunk k feeds tokens [k*T, (k+1)*T) of each lane and predicts the next ones, within the lane. After the
/// last whole chunk the lanes begin again.
class TrainingLanes {
 public:
  /// Throws UserError when a lane is too short for one chunk, saying how much text is needed.
  TrainingLanes(std::vector<std::int32_t> tokens, int batch, int time_steps);
  std::int64_t chunks_per_epoch() const { return chunks_; }
  /// The chunk of training step `step` (0, 1, …) for the lanes of `tiling`.
  void fetch(std::int64_t step, const Tiling& tiling, LaneBatch& batch) const;

 private:
  std::vector<std::int32_t> tokens_;
  int batch_, time_steps_;
  std::int64_t lane_length_, chunks_;
};

/// Evaluation lanes: every token but the first is predicted once. Lane b feeds the tokens from b * floor(N /
/// B); the last lane takes the rest; lanes that have ended are masked.
class EvaluationLanes {
 public:
  /// Throws UserError when there are fewer than two tokens.
  EvaluationLanes(std::vector<std::int32_t> tokens, int batch, int time_steps);
  std::int64_t chunks() const;
  std::int64_t predictions() const { return static_cast<std::int64_t>(tokens_.size()) - 1; }
  void fetch(std::int64_t chunk, const Tiling& tiling, LaneBatch& batch) const;

 private:
  std::int64_t lane_predictions(int lane) const;
  int valid_steps(std::int64_t chunk, int lane) const;

  std::vector<std::int32_t> tokens_;
  int batch_, time_steps_;
};

}  // namespace lamina
