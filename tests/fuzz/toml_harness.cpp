#include <stdexcept>

#include "launch/configuration.h"
#include "launch/toml.h"
#include "runtime/error.h"
#include "tests/fuzz/harness.h"

namespace lamina::fuzz {

void toml(Bytes bytes) {
  const std::string toml(bytes.begin(), bytes.end());
  try {
    for (const TomlEntry& entry : read_toml(toml, "fuzz.toml"))
      if (entry.kind == TomlEntry::Kind::string &&
          read_toml("x = " + toml_quoted(entry.text), "quoted").front().text != entry.text)
        throw std::logic_error("another string came back");
    const Configuration configuration = from_toml(toml, "fuzz.toml");
    if (to_toml(from_toml(to_toml(configuration), "again")) != to_toml(configuration))
      throw std::logic_error("another configuration came back");
    configuration.validate();
  } catch (const UserError&) {
  }
}

}  // namespace lamina::fuzz
