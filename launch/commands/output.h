// Standard output of a command.
#pragma once

#include <cstdio>
#include <string>

namespace lamina {

/// main() checks in the end that everything went out.
inline void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace lamina
