#include "io/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <system_error>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;

constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr std::uintmax_t kMaxTextBytes = std::uintmax_t{4} << 30;

struct Sequence {
  char32_t character;
  std::size_t length;
};

bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

/// The sequence at the front of `bytes`; none when it is not valid UTF-8 (RFC 3629).
std::optional<Sequence> decode_one(std::string_view bytes) {
  const auto lead = static_cast<unsigned char>(bytes[0]);
  if (lead < 0x80) return Sequence{lead, 1};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC0 || lead >= 0xF8 || bytes.size() < length) return std::nullopt;

  char32_t character = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(bytes[i]);
    if ((next & 0xC0) != 0x80) return std::nullopt;
    character = character << 6 | (next & 0x3Fu);
  }
  constexpr char32_t kShortest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool overlong = character < kShortest[length];
  if (overlong || is_surrogate(character) || character > kLastCodePoint) return std::nullopt;
  return Sequence{character, length};
}

void append_utf8(std::string& out, char32_t c) {
  const auto continuation = [&](int shift) {
    out += static_cast<char>(0x80 | (static_cast<unsigned>(c >> shift) & 0x3F));
  };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    continuation(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    continuation(6);
    continuation(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

/// "'é' (U+00E9)"; without the quoted form for control characters.
std::string describe(char32_t c) {
  const std::string number = fmt::format("U+{:04X}", static_cast<std::uint32_t>(c));
  if (c < 0x20 || c == 0x7F) return number;
  return fmt::format("'{}' ({})", encode_utf8(std::span(&c, 1)), number);
}

void check_regular_file(const fs::path& file, std::uintmax_t limit, const std::string& wanted) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found)
    throw UserError(fmt::format("{} does not exist; give the path of {}", file.string(), wanted));
  if (error)
    throw UserError(fmt::format("{} cannot be read: {}; check the path and its permissions", file.string(),
                                error.message()));
  if (fs::is_directory(status))
    throw UserError(fmt::format("{} is a directory; give the path of {} in it", file.string(), wanted));
  if (!fs::is_regular_file(status))
    throw UserError(
        fmt::format("{} is not a regular file; save what it gives to {} first", file.string(), wanted));
  const std::uintmax_t size = fs::file_size(file, error);
  if (!error && size > limit)
    throw UserError(fmt::format("{} has {} bytes and at most {} are allowed; use a part of it", file.string(),
                                size, limit));
}

/// What `work` makes of the bytes of a file.
template <class Work>
auto within_memory(const fs::path& file, const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw UserError(
        fmt::format("{} is too large for this machine's memory; use a part of it", file.string()));
  }
}

/// Calls visit(i, lane) for the lanes of `tiling`, i being the index in [D, T, R] at t = 0.
template <class Visit>
void for_each_lane(const Tiling& tiling, int time_steps, const Visit& visit) {
  for (int g = 0; g < tiling.groups.local; ++g)
    for (int r = 0; r < tiling.rows; ++r) {
      const auto index = static_cast<std::size_t>(g) * static_cast<std::size_t>(time_steps) *
                             static_cast<std::size_t>(tiling.rows) +
                         static_cast<std::size_t>(r);
      visit(index, (tiling.groups.first + g) * tiling.rows + r);
    }
}

std::size_t local_size(const Tiling& tiling, int time_steps) {
  return static_cast<std::size_t>(tiling.local_lanes()) * static_cast<std::size_t>(time_steps);
}

}  // namespace

std::vector<char32_t> decode_utf8(std::string_view bytes, const std::string& source) {
  std::vector<char32_t> text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const auto sequence = decode_one(bytes.substr(at));
    if (!sequence)
      throw UserError(
          fmt::format("{} is not UTF-8: invalid sequence at byte {} (0x{:02X}); convert it, for example with "
                      "iconv -f LATIN1 -t UTF-8",
                      source, at, static_cast<unsigned char>(bytes[at])));
    text.push_back(sequence->character);
    at += sequence->length;
  }
  return text;
}

std::string encode_utf8(std::span<const char32_t> text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (const char32_t c : text) append_utf8(bytes, c);
  return bytes;
}

std::string read_bytes(const fs::path& file, std::uintmax_t limit, const std::string& wanted) {
  check_regular_file(file, limit, wanted);
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::string bytes;
  if (in) {
    within_memory(file, [&] { bytes.resize(std::min(limit, fs::file_size(file))); });
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  const bool is_all = in && in.peek() == std::ifstream::traits_type::eof();
  if (!is_all)
    throw UserError(fmt::format("{} cannot be read: {}; check its permissions", file.string(),
                                errno != 0 ? std::strerror(errno) : "it changed while it was read"));
  return bytes;
}

std::vector<char32_t> read_text(const fs::path& file) {
  const std::string bytes = read_bytes(file, kMaxTextBytes, "a UTF-8 text file");
  if (bytes.empty()) throw UserError(fmt::format("{} is empty; give a file that holds text", file.string()));
  return within_memory(file, [&] { return decode_utf8(bytes, file.string()); });
}

Vocabulary Vocabulary::of(std::span<const char32_t> text) {
  std::vector<bool> seen(kLastCodePoint + 1);
  for (const char32_t c : text) seen.at(c) = true;
  std::vector<char32_t> characters;
  for (char32_t c = 0; c <= kLastCodePoint; ++c)
    if (seen[c]) characters.push_back(c);
  return Vocabulary(std::move(characters));
}

Vocabulary::Vocabulary(std::vector<char32_t> characters) : characters_(std::move(characters)) {
  const auto not_ascending = [](char32_t a, char32_t b) { return a >= b; };
  if (std::ranges::adjacent_find(characters_, not_ascending) != characters_.end())
    throw UserError(
        "the vocabulary's characters must ascend without repeats; the file that holds it is not valid");
  if (std::ranges::any_of(characters_, [](char32_t c) { return c > kLastCodePoint || is_surrogate(c); }))
    throw UserError(
        "the vocabulary holds numbers that are no Unicode characters; the file that holds it is not valid");
}

std::vector<std::int32_t> Vocabulary::encode(std::span<const char32_t> text,
                                             const std::string& source) const {
  std::vector<std::int32_t> token_of(characters_.empty() ? 0 : characters_.back() + 1, -1);
  for (std::size_t i = 0; i < characters_.size(); ++i)
    token_of[characters_[i]] = static_cast<std::int32_t>(i);

  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (const char32_t c : text) {
    if (c >= token_of.size() || token_of[c] < 0)
      throw UserError(
          fmt::format("character {} at position {} of {} is not among the {} characters that the model "
                      "knows; remove it or train on a text that has it",
                      describe(c), tokens.size(), source, size()));
    tokens.push_back(token_of[c]);
  }
  return tokens;
}

TextSplit split_text(std::span<const char32_t> text, double validation_fraction) {
  if (!(validation_fraction >= 0 && validation_fraction < 1))
    throw UserError(fmt::format("validation-fraction {} is not allowed; give a number from 0 to below 1",
                                validation_fraction));
  const auto held_out = static_cast<std::size_t>(validation_fraction * static_cast<double>(text.size()));
  return {text.first(text.size() - held_out), text.last(held_out)};
}

TrainingLanes::TrainingLanes(std::vector<std::int32_t> tokens, int batch, int time_steps)
    : tokens_(std::move(tokens)), batch_(batch), time_steps_(time_steps) {
  check(batch > 0 && time_steps > 0, "lanes: batch and time steps must be positive");
  const auto size = static_cast<std::int64_t>(tokens_.size());
  lane_length_ = size / batch;
  chunks_ = (lane_length_ - 1) / time_steps;
  if (lane_length_ < 2 || chunks_ < 1)
    throw UserError(
        fmt::format("the training text has {} characters and batch {} with {} time steps needs at least {}; "
                    "give more text, or a smaller batch or fewer time steps",
                    size, batch, time_steps, std::int64_t{batch} * (std::int64_t{time_steps} + 1)));
}

void TrainingLanes::fetch(std::int64_t step, const Tiling& tiling, LaneBatch& batch) const {
  const Span span(SpanKind::input, "read lanes");
  check(tiling.batch() == batch_, "training lanes: the tiling is of another batch");
  const std::int64_t chunk = step % chunks_;
  batch.time_steps = time_steps_;
  batch.first = chunk == 0;
  batch.predictions = std::int64_t{batch_} * time_steps_;
  batch.tokens.resize(local_size(tiling, time_steps_));
  batch.targets.resize(batch.tokens.size());
  batch.lengths.clear();
  for_each_lane(tiling, time_steps_, [&](std::size_t index, int lane) {
    const std::int32_t* from = tokens_.data() + lane * lane_length_ + chunk * time_steps_;
    for (int t = 0; t < time_steps_; ++t, index += static_cast<std::size_t>(tiling.rows)) {
      batch.tokens[index] = from[t];
      batch.targets[index] = from[t + 1];
    }
  });
}

EvaluationLanes::EvaluationLanes(std::vector<std::int32_t> tokens, int batch, int time_steps)
    : tokens_(std::move(tokens)), batch_(batch), time_steps_(time_steps) {
  check(batch > 0 && time_steps > 0, "lanes: batch and time steps must be positive");
  if (tokens_.size() < 2)
    throw UserError(fmt::format(
        "the text to evaluate has {} characters and at least 2 are needed; give more text", tokens_.size()));
}

std::int64_t EvaluationLanes::lane_predictions(int lane) const {
  const std::int64_t share = static_cast<std::int64_t>(tokens_.size()) / batch_;
  return lane < batch_ - 1 ? share : predictions() - share * (batch_ - 1);
}

std::int64_t EvaluationLanes::chunks() const {
  const std::int64_t longest = std::max(lane_predictions(0), lane_predictions(batch_ - 1));
  return (longest + time_steps_ - 1) / time_steps_;
}

int EvaluationLanes::valid_steps(std::int64_t chunk, int lane) const {
  const std::int64_t left = lane_predictions(lane) - chunk * time_steps_;
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, time_steps_));
}

void EvaluationLanes::fetch(std::int64_t chunk, const Tiling& tiling, LaneBatch& batch) const {
  check(tiling.batch() == batch_, "evaluation lanes: the tiling is of another batch");
  const std::int64_t share = static_cast<std::int64_t>(tokens_.size()) / batch_;
  batch.time_steps = time_steps_;
  batch.first = chunk == 0;
  batch.tokens.assign(local_size(tiling, time_steps_), 0);
  batch.targets.assign(batch.tokens.size(), -1);
  batch.lengths.clear();
  for_each_lane(tiling, time_steps_, [&](std::size_t index, int lane) {
    const int steps = valid_steps(chunk, lane);
    batch.lengths.push_back(steps);
    const std::int32_t* from = tokens_.data() + lane * share + chunk * time_steps_;
    for (int t = 0; t < steps; ++t, index += static_cast<std::size_t>(tiling.rows)) {
      batch.tokens[index] = from[t];
      batch.targets[index] = from[t + 1];
    }
  });
  batch.predictions = 0;
  for (int lane = 0; lane < batch_; ++lane) batch.predictions += valid_steps(chunk, lane);
}

}  // namespace lamina
