// This machine's name, for people and to tell which ranks share a machine.
#pragma once

#include <string>

namespace lamina {

std::string host_name();

}  // namespace lamina
