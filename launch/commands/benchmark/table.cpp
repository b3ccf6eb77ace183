#include "launch/commands/benchmark/table.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/error.h"

namespace lamina {
namespace {

std::string without_blanks_at_end(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

Table::Table(std::vector<std::string> headings, std::size_t words) : words_(words) {
  rows_.push_back(std::move(headings));
}

void Table::add(std::vector<std::string> cells) {
  check(cells.size() <= rows_.front().size(), "a row has more cells than the table has columns");
  cells.resize(rows_.front().size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i < words_ ? fmt::format("  {:<{}}", row[i], widths[i])
                         : fmt::format("  {:>{}}", row[i], widths[i]);
    text += without_blanks_at_end(std::move(line)) + '\n';
  }
  return text;
}

}  // namespace lamina
