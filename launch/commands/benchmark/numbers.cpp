#include "launch/commands/benchmark/numbers.h"

#include <fmt/format.h>

#include <charconv>

#include "launch/setting.h"

namespace lamina {

std::vector<int> numbers_of(const char* name, const std::string& text, int minimum) {
  std::vector<int> numbers;
  for (std::size_t first = 0; first <= text.size();) {
    const std::size_t end = std::min(text.find(',', first), text.size());
    int number = 0;
    const auto [stop, error] = std::from_chars(text.data() + first, text.data() + end, number);
    const bool is_number = error == std::errc() && stop == text.data() + end && number >= minimum;
    require(is_number,
            fmt::format("--{} must be whole numbers of at least {} with commas between, like 512,1024, "
                        "not '{}'",
                        name, minimum, text));
    numbers.push_back(number);
    first = end + 1;
  }
  return numbers;
}

}  // namespace lamina
