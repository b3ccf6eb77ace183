#include "launch/agreement.h"

#include "io/shared_outcome.h"

namespace lamina {

std::string from_root(Communicator& world, const std::function<std::string()>& work) {
  std::string text;
  on_every_rank(world, [&] {
    if (world.rank() == 0) text = work();
  });
  world.broadcast(text, 0);
  return text;
}

void on_every_rank(Communicator& world, const std::function<void()>& work) { share(outcome_of(work), world); }

}  // namespace lamina
