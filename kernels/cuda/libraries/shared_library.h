// A library of the system that is loaded when it is needed.
#pragma once

#include <string>

namespace lamina::cuda {

/// Stays loaded until the process ends.
class SharedLibrary {
 public:
  /// Null inside where `name` ("libcublasLt.so.13") cannot be loaded.
  explicit SharedLibrary(const std::string& name);

  explicit operator bool() const { return handle_ != nullptr; }
  /// Why it could not be loaded, as the system says.
  const std::string& error() const { return error_; }

  /// Sets `function` to the library's `name`; throws UserError where it has none.
  template <class Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(address_of(name));
  }

  /// The same, but sets it to null where it has none.
  template <class Function>
  void find_if_there(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(address_if_there(name));
  }

 private:
  void* address_of(const char* name) const;
  void* address_if_there(const char* name) const;

  std::string name_, error_;
  void* handle_;
};

}  // namespace lamina::cuda
