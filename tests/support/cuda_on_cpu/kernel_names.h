// Names of kernels for messages.
#pragma once

#include <string>

namespace cuda_on_cpu {

/// As in the source, where the program has its symbols; else the address.
std::string kernel_name(const void* function);

/// The linker's name, or null. Safe in a handler of signals.
const char* kernel_symbol(const void* function);

}  // namespace cuda_on_cpu
