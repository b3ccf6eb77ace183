// What this build is.
#pragma once

#include <string>

namespace lamina {

std::string version();       ///< "0.1.0"
std::string build_record();  ///< version and libraries, one line: kept in checkpoints

}  // namespace lamina
