// Thread ranks with slots of a chosen size, for tests of what happens to arrays that do not fit.
#pragma once

#include "runtime/communicator.h"

namespace lamina {

void run_on_threads(int ranks, std::size_t slot_bytes, const std::function<void(Communicator& world)>& body);

}  // namespace lamina
