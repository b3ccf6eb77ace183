// Process grids as a person writes them.
#pragma once

#include <string>
#include <vector>

namespace lamina {

/// A process grid: its ranks are data * model.
struct Grid {
  int data = 1, model = 1;

  int ranks() const { return data * model; }
  std::string text() const { return std::to_string(data) + "x" + std::to_string(model); }
  friend bool operator==(const Grid&, const Grid&) = default;
};

/// "1x1,2x1,1x2": data x model ranks. Throws UserError on anything else, and on a grid that comes twice.
std::vector<Grid> grids_of(const std::string& text);

/// All grids whose axes are powers of two and whose ranks are `ranks` at most, smaller ones first.
std::vector<Grid> grids_up_to(int ranks);

}  // namespace lamina
