// What is wrong with a file that should be a checkpoint.
#pragma once

#include <stdexcept>
#include <string>

namespace lamina::checkpoint {

/// What is damaged, without the file's name: with_checkpoint() puts it before.
class Damage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void demand(bool condition, const std::string& otherwise) {
  if (!condition) throw Damage(otherwise);
}

}  // namespace lamina::checkpoint
