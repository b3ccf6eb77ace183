#include "launch/setting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/error.h"

namespace lamina {
namespace {

/// The number that `text` spells out in full.
template <class Number>
std::errc parse(std::string_view text, Number& number) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc()) return error;
  return stop == end ? std::errc() : std::errc::invalid_argument;
}

/// Writes a value into a field, or throws what is wrong with it.
struct Assignment {
  std::string_view text;
  const std::string& subject;

  template <class Integer>
  void operator()(Integer* field) const {
    Integer number{};
    const std::errc error = parse(text, number);
    using Limits = std::numeric_limits<Integer>;
    if (error == std::errc::result_out_of_range)
      refuse(fmt::format("a whole number from {} to {}", Limits::min(), Limits::max()));
    if (error != std::errc()) refuse("a whole number");
    *field = number;
  }
  void operator()(double* field) const {
    double number = 0;
    const std::errc error = parse(text, number);
    if (error == std::errc::result_out_of_range) refuse("a number that double precision can hold");
    if (error != std::errc() || !std::isfinite(number)) refuse("a finite number");
    *field = number;
  }
  void operator()(bool* field) const {
    if (text != "true" && text != "false") refuse("true or false");
    *field = text == "true";
  }
  void operator()(std::string* field) const { *field = text; }

  [[noreturn]] void refuse(const std::string& allowed) const {
    throw UserError(fmt::format("{} must be {}, not '{}'", subject, allowed, text));
  }
};

/// Single-character insertions, removals, changes and swaps of neighbours that turn `a` into `b`.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before, last, row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row.back();
}

}  // namespace

void assign(const Setting& setting, std::string_view text, const std::string& subject) {
  const Assignment assignment{text, subject};
  const auto& choices = setting.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
    assignment.refuse(choices.size() == 1 ? "'" + choices[0] + "'"
                                          : fmt::format("one of {}", fmt::join(choices, ", ")));
  std::visit(assignment, setting.field);
}

std::string text_of(const Setting& setting) {
  return std::visit([](const auto* field) { return fmt::format("{}", *field); }, setting.field);
}

void require(bool condition, const std::string& sentence) {
  if (!condition) throw UserError(sentence);
}

void at_least(const char* name, std::int64_t value, std::int64_t minimum) {
  require(value >= minimum, fmt::format("--{} must be at least {}, not {}", name, minimum, value));
}

void at_most(const char* name, std::int64_t value, std::int64_t maximum) {
  require(value <= maximum, fmt::format("--{} must be at most {}, not {}", name, maximum, value));
}

std::string closest(const std::string& name, const std::vector<std::string>& names) {
  const std::size_t limit = std::max<std::size_t>(1, name.size() / 3);
  std::string best;
  std::size_t best_distance = limit + 1;
  for (const std::string& candidate : names) {
    if (name.size() > candidate.size() + limit) continue;
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace lamina
