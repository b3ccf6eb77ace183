#include "kernels/cuda/libraries/shared_library.h"

#include <dlfcn.h>

#include "runtime/error.h"

namespace lamina::cuda {

SharedLibrary::SharedLibrary(const std::string& name)
    : name_(name), handle_(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) error_ = dlerror();
}

void* SharedLibrary::address_of(const char* name) const {
  void* address = address_if_there(name);
  if (address == nullptr)
    throw UserError(name_ + " has no " + name +
                    ": install the version that this build of Lamina was made with");
  return address;
}

void* SharedLibrary::address_if_there(const char* name) const { return dlsym(handle_, name); }

}  // namespace lamina::cuda
