// The fingerprint of a collective: what a rank called. Ranks compare theirs before they use each other's
// data.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtime/communicator.h"

namespace lamina {

enum class Operation : std::uint8_t {
  barrier,
  broadcast,
  all_gather,
  all_to_all,
  all_reduce,
  reduce_scatter,
  split,
  library,   ///< the ranks wait for each other inside a library
  conclude,  ///< the job's end
  leave      ///< the communicator's end
};

struct Call {
  Operation operation = Operation::barrier;
  ElementType type = ElementType::byte;
  Reduction reduction = Reduction::sum;
  std::int32_t root = 0;
  std::uint64_t count = 0;  ///< elements of `type`, as the caller of the collective counts them

  friend bool operator==(const Call&, const Call&) = default;
};

/// A number that is another one for another call, but for chance: in its upper 48 bits alone, too.
constexpr std::uint64_t fingerprint(const Call& call) {
  const std::uint64_t what = static_cast<std::uint64_t>(call.operation) |
                             static_cast<std::uint64_t>(call.type) << 8 |
                             static_cast<std::uint64_t>(call.reduction) << 16 |
                             static_cast<std::uint64_t>(static_cast<std::uint32_t>(call.root)) << 32;
  return (what + call.count * 0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93;
}

const char* name_of(Operation operation);

/// "all_reduce (sum) of 8 float32", "broadcast of 3 float32 from rank 1", the root being `call.root`.
std::string describe(const Call& call);

/// The first rank that called something else than rank 0 did, and both calls, as one sentence; nothing where
/// all agree. `names`: the ranks' numbers for people. The same on every rank that holds the same calls.
std::optional<std::string> disagreement(std::span<const Call> calls, std::span<const int> names);

}  // namespace lamina
