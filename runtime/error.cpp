#include "runtime/error.h"

#include <fmt/format.h>

namespace lamina {

void check(bool condition, const std::string& what, std::source_location place) {
  if (condition) return;
  throw InternalError(
      fmt::format("{}:{}: {}: {}", place.file_name(), place.line(), place.function_name(), what));
}

}  // namespace lamina
