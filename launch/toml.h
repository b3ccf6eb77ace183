// The part of TOML that flat settings need: one `name = value` per line, comments, strings, whole numbers,
// floating-point numbers, true and false. Non-goals: tables, arrays, dates, strings of several lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lamina {

struct TomlEntry {
  enum class Kind { string, integer, floating, boolean };

  std::string key;
  Kind kind = Kind::string;
  std::string text;  ///< of a string: without quotes and escapes; of a number: without underscores
  int line = 0;
};

/// Of a file or text in TOML.
inline constexpr std::size_t kMaxTomlBytes = std::size_t{1} << 20;

/// Entries in the order of the file. Throws UserError naming `source` and the line when a line is malformed
/// or repeats a key, and when `text` is longer than kMaxTomlBytes.
std::vector<TomlEntry> read_toml(std::string_view text, const std::string& source);

/// `text` as a TOML string, quotes included.
std::string toml_quoted(std::string_view text);

}  // namespace lamina
