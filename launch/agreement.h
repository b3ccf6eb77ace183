// Work whose outcome, good or bad, all ranks must share: done by one rank for all, or by each for itself.
#pragma once

#include <functional>
#include <string>

#include "runtime/communicator.h"

namespace lamina {

/// `work` runs on rank 0; its text reaches every rank. A UserError of rank 0 is thrown on every rank alike.
std::string from_root(Communicator& world, const std::function<std::string()>& work);

/// `work` runs on every rank. A UserError or DamagedCheckpoint of the first rank that has one is thrown on
/// every rank alike.
void on_every_rank(Communicator& world, const std::function<void()>& work);

}  // namespace lamina
