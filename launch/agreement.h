// Work that one rank does for all - reading a file, listing a folder - with its outcome, good or bad, on
// every rank.
#pragma once

#include <functional>
#include <string>

#include "runtime/communicator.h"

namespace lamina {

/// `work` runs on rank 0; its text reaches every rank. A UserError of rank 0 is thrown on every rank alike.
std::string from_root(Communicator& world, const std::function<std::string()>& work);

}  // namespace lamina
