// A command line as words.
#pragma once

#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

namespace lamina {

/// The words of `line`, which blanks separate.
inline std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

inline void append(std::vector<std::string>& words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
}

}  // namespace lamina
