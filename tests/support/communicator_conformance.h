// What every communicator must do, as one list of checks.
#pragma once

#include <ostream>
#include <vector>

#include "runtime/communicator.h"

namespace lamina {

/// `run` is called on every rank of a fresh world of any size, reports by EXPECT_*, and may leave the world
/// broken.
struct CommunicatorCheck {
  const char* name;
  void (*run)(Communicator& world);
};

const std::vector<CommunicatorCheck>& communicator_checks();

inline std::ostream& operator<<(std::ostream& out, const CommunicatorCheck& check) {
  return out << check.name;
}

}  // namespace lamina
