// Figures as a table for people.
#pragma once

#include <string>
#include <vector>

namespace lamina {

class Table {
 public:
  /// `headings`: one for each column; the first `words` columns are set to the left, the others to the right.
  explicit Table(std::vector<std::string> headings, std::size_t words = 1);

  /// A row; cells that are missing at its end stay empty.
  void add(std::vector<std::string> cells);
  /// All rows below the headings, indented by two blanks, columns as wide as they need.
  std::string text() const;

 private:
  std::size_t words_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lamina
