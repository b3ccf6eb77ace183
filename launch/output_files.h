// Files that a person names to be written: none may be one that is to be read, or another of them.
#pragma once

#include <string>
#include <vector>

namespace lamina {

struct NamedFile {
  std::string flag;  ///< without its dashes
  std::string file;  ///< empty: the flag is not given
};

/// Throws UserError where an output is the same file as an input or another output, by whatever path. What is
/// no file and takes everything, as /dev/null, may be named twice.
void require_apart(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs);

}  // namespace lamina
