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

class Communicator::TimedSums final : public BackgroundSums {
 public:
  TimedSums(Communicator& group, std::unique_ptr<BackgroundSums> sums)
      : group_(group), sums_(std::move(sums)) {}

  void add(std::span<float> values) override {
    is_busy_ = true;
    group_.timed("begin sums", [&] { sums_->add(values); });
  }
  void advance() override {
    if (is_busy_) group_.timed("advance sums", [&] { sums_->advance(); });
  }
  void pause() override { sums_->pause(); }
  void finish() override {
    is_busy_ = false;
    group_.timed("finish sums", [&] { sums_->finish(); });
  }

 private:
  Communicator& group_;
  bool is_busy_ = false;
  std::unique_ptr<BackgroundSums> sums_;
};

std::unique_ptr<BackgroundSums> Communicator::make_background_sums() {
  if (auto sums = do_make_background_sums()) return std::make_unique<TimedSums>(*this, std::move(sums));
  return std::make_unique<DeferredSums>([this](std::span<float> values) { all_reduce(values); });
}

void Communicator::in_library(const std::function<void()>& work) {
  if (size() == 1) return work();
  timed("library", [&] { do_in_library(work); });
}

void Communicator::barrier() {
  if (size() > 1) timed("barrier", [&] { do_barrier(); });
}

void Communicator::conclude() {
  if (size() > 1) timed("conclude", [&] { do_conclude(); });
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
