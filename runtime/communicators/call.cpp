#include "runtime/communicators/call.h"

#include <fmt/format.h>

#include <array>

namespace lamina {
namespace {

constexpr std::array kOperationNames{"barrier",        "broadcast", "all_gather", "all_to_all", "all_reduce",
                                     "reduce_scatter", "split",     "library",    "conclude",   "leave"};
constexpr std::array kTypeNames{"byte", "int32", "int64", "float32", "float64"};
constexpr std::array kReductionNames{"sum", "max", "min"};

template <std::size_t N, class Enum>
const char* name(const std::array<const char*, N>& names, Enum value) {
  return names.at(static_cast<std::size_t>(value));
}

// "called broadcast of 8 float32 from rank 0", "came to the job's end", "left the group".
std::string action(Call call, std::span<const int> names) {
  if (call.operation == Operation::conclude) return "came to " + describe(call);
  if (call.operation == Operation::leave) return "left the group";
  call.root = names[static_cast<std::size_t>(call.root)];
  return "called " + describe(call);
}

}  // namespace

const char* name_of(Operation operation) { return name(kOperationNames, operation); }

std::string describe(const Call& call) {
  std::string text = name(kOperationNames, call.operation);
  if (call.operation == Operation::leave) return "the group's end";
  if (call.operation == Operation::conclude) return "the job's end";
  if (call.operation == Operation::library) return "a library's call";
  if (call.operation == Operation::barrier || call.operation == Operation::split) return text;
  if (call.operation == Operation::all_reduce)
    text += fmt::format(" ({})", name(kReductionNames, call.reduction));
  text += fmt::format(" of {} {}", call.count, name(kTypeNames, call.type));
  if (call.operation == Operation::broadcast) text += fmt::format(" from rank {}", call.root);
  return text;
}

std::optional<std::string> disagreement(std::span<const Call> calls, std::span<const int> names) {
  for (std::size_t r = 1; r < calls.size(); ++r) {
    if (calls[r] == calls[0]) continue;
    return fmt::format("the ranks do not call the same collective: rank {} {}, rank {} {}", names[0],
                       action(calls[0], names), names[r], action(calls[r], names));
  }
  return std::nullopt;
}

}  // namespace lamina
