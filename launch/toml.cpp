#include "launch/toml.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "io/text.h"
#include "runtime/error.h"

namespace lamina {
namespace {

constexpr std::string_view kBlank = " \t\r";

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/// Reads one line from left to right.
class LineReader {
 public:
  LineReader(std::string_view line, std::string place) : rest_(line), place_(std::move(place)) {}

  bool at_end() {
    skip_blanks();
    return rest_.empty() || rest_.front() == '#';
  }

  std::string key() {
    skip_blanks();
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_key_character);
    const std::string key(take(static_cast<std::size_t>(end - rest_.begin())));
    skip_blanks();
    if (key.empty() || !skip('=')) fail("a line must read 'name = value'");
    skip_blanks();
    return key;
  }

  void value(TomlEntry& entry) {
    if (skip('"'))
      entry.text = basic_string();
    else if (skip('\''))
      entry.text = literal_string();
    else
      bare_value(entry);
    if (!at_end()) fail("nothing may follow the value of '" + entry.key + "' but a comment");
  }

  [[noreturn]] void fail(const std::string& what) const { throw UserError(place_ + ": " + what); }

 private:
  void skip_blanks() { take(std::min(rest_.find_first_not_of(kBlank), rest_.size())); }
  bool skip(char c) { return rest_.starts_with(c) && !take(1).empty(); }
  std::string_view take(std::size_t count) {
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string basic_string() {
    std::string text;
    while (!rest_.empty()) {
      const char c = take(1).front();
      if (c == '"') return text;
      text += c == '\\' ? escaped() : std::string(1, c);
    }
    fail("a string lacks its closing quote");
  }

  std::string escaped() {
    static constexpr std::string_view kNames = "btnfr\"\\", kValues = "\b\t\n\f\r\"\\";
    const char name = rest_.empty() ? ' ' : take(1).front();
    if (name == 'u') return code_point(take(4), 4);
    if (name == 'U') return code_point(take(8), 8);
    const std::size_t index = kNames.find(name);
    if (index == std::string_view::npos) fail("in a string, a backslash is written twice");
    return std::string(1, kValues[index]);
  }

  std::string code_point(std::string_view digits, std::size_t count) const {
    std::uint32_t value = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool is_surrogate = value >= 0xD800 && value <= 0xDFFF;
    if (digits.size() != count || error != std::errc() || stop != digits.data() + digits.size() ||
        is_surrogate || value > 0x10FFFF)
      fail("a string has an escape that is not a Unicode character");
    const char32_t character = value;
    return encode_utf8({&character, 1});
  }

  std::string literal_string() {
    const std::size_t end = rest_.find('\'');
    if (end == std::string_view::npos) fail("a string lacks its closing quote");
    const std::string text(take(end));
    take(1);
    return text;
  }

  void bare_value(TomlEntry& entry) {
    const std::string_view word = take(std::min(rest_.find_first_of(" \t\r#"), rest_.size()));
    entry.text = word;
    if (word == "true" || word == "false") {
      entry.kind = TomlEntry::Kind::boolean;
    } else if (is_number(word)) {
      std::erase(entry.text, '_');
      const bool is_integer = word.find_first_of(".eEnf") == std::string_view::npos;
      entry.kind = is_integer ? TomlEntry::Kind::integer : TomlEntry::Kind::floating;
    } else {
      fail(fmt::format("the value of '{}' must be a string in quotes, a number, true or false, not '{}'",
                       entry.key, word));
    }
  }

  /// Whether `word` looks like a number; assign() decides whether it is one that is allowed.
  static bool is_number(std::string_view word) {
    if (word.starts_with('+') || word.starts_with('-')) word.remove_prefix(1);
    if (word == "inf" || word == "nan") return true;
    return !word.empty() && word.front() >= '0' && word.front() <= '9' &&
           word.find_first_not_of("0123456789_.eE+-") == std::string_view::npos;
  }

  std::string_view rest_;
  std::string place_;
};

}  // namespace

std::vector<TomlEntry> read_toml(std::string_view text, const std::string& source) {
  if (text.size() > kMaxTomlBytes)
    throw UserError(
        fmt::format("{} has {} bytes and a configuration at most {}; give a file of settings only", source,
                    text.size(), kMaxTomlBytes));
  std::vector<TomlEntry> entries;
  std::map<std::string, int> line_of;
  for (int line = 1; !text.empty(); ++line) {
    const std::string_view content = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(content.size() + 1, text.size()));
    LineReader reader(content, fmt::format("{}, line {}", source, line));
    if (reader.at_end()) continue;

    TomlEntry entry;
    entry.line = line;
    entry.key = reader.key();
    reader.value(entry);
    const auto [earlier, is_new] = line_of.emplace(entry.key, line);
    if (!is_new) reader.fail(fmt::format("'{}' is set already, on line {}", entry.key, earlier->second));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::string toml_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      quoted += {'\\', c};
    else if (c == '\n')
      quoted += "\\n";
    else if (c == '\t')
      quoted += "\\t";
    else if (byte < 0x20 || byte == 0x7F)
      quoted += fmt::format("\\u{:04X}", byte);
    else
      quoted += c;
  }
  return quoted + '"';
}

}  // namespace lamina
