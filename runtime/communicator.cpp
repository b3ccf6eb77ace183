#include "runtime/communicator.h"

#include "runtime/communicators/pieces.h"

namespace lamina {

std::size_t size_of(ElementType type) {
  switch (type) {
    case ElementType::byte:
      return 1;
    case ElementType::int32:
    case ElementType::float32:
      return 4;
    case ElementType::int64:
    case ElementType::float64:
      return 8;
  }
  check(false, "no such element type");
  return 0;
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, const std::string& name) {
  check(color >= 0, "split: a color is 0 or more");
  auto group = do_split(color, key);
  group->name_ = name;
  group->do_rename(name);
  return group;
}

void Communicator::in_library(const std::function<void()>& work) {
  if (size() == 1) return work();
  timed("library", [&] { do_in_library(work); });
}

void Communicator::barrier() {
  if (size() > 1) timed("barrier", [&] { do_barrier(); });
}

void Communicator::copy_values(std::span<const std::byte> from, void* to) {
  copy_bytes(to, from.data(), from.size());
}

void Communicator::broadcast(std::string& text, int root) {
  std::uint64_t length = text.size();
  broadcast(std::span(&length, 1), root);
  text.resize(length);
  broadcast(std::span(text), root);
}

}  // namespace lamina
