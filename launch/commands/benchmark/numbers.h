// Settings that are lists of numbers.
#pragma once

#include <string>
#include <vector>

namespace lamina {

/// "512,1024" as given to the flag --`name`. Throws UserError unless there is at least one number and all are
/// whole and `minimum` or more.
std::vector<int> numbers_of(const char* name, const std::string& text, int minimum = 1);

}  // namespace lamina
