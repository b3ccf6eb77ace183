// Fingerprints of calls: ranks compare them instead of the calls.
#include "runtime/communicators/call.h"

#include <gtest/gtest.h>

#include <set>

namespace lamina {
namespace {

TEST(Fingerprint, DiffersInItsUpperBitsWhereverTheCallDoes) {
  std::set<std::uint64_t> seen;
  std::size_t calls = 0;

  for (const auto operation :
       {Operation::barrier, Operation::broadcast, Operation::all_gather, Operation::leave})
    for (const auto type : {ElementType::byte, ElementType::int32, ElementType::float64})
      for (const auto reduction : {Reduction::sum, Reduction::max, Reduction::min})
        for (std::int32_t root = 0; root < 40; ++root)
          for (std::uint64_t count = 0; count < 300; count += 1 + count / 16) {
            seen.insert(fingerprint({operation, type, reduction, root, count}) >> 16);
            seen.insert(fingerprint({operation, type, reduction, root, (count + 1) << 33}) >> 16);
            calls += 2;
          }

  EXPECT_EQ(calls, seen.size());
}

}  // namespace
}  // namespace lamina
