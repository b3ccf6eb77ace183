#include "launch/agreement.h"

#include "runtime/error.h"

namespace lamina {

std::string from_root(Communicator& world, const std::function<std::string()>& work) {
  std::string text;
  int code = 0;
  if (world.rank() == 0) {
    try {
      text = work();
    } catch (const UserError& error) {
      text = error.what();
      code = static_cast<int>(error.code());
    }
  }
  world.broadcast(std::span(&code, 1), 0);
  world.broadcast(text, 0);
  if (code != 0) throw UserError(text, static_cast<ExitCode>(code));
  return text;
}

}  // namespace lamina
