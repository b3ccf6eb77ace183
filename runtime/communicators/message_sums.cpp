#include "runtime/communicators/message_sums.h"

#include <algorithm>

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kMostAtOnce{500};

}  // namespace

void MessageSums::add(std::span<float> values) {
  waiting_.push_back(values);
  if (!current_) go_on();
  advance();
}

// A look moves as much as MPI takes at once, some ten kilobytes over TCP; one that took twice as long as the
// quickest has moved something, and there may be more.
void MessageSums::advance() {
  const auto start = Clock::now();
  auto before = start;
  while (current_ && before - start < kMostAtOnce) {
    if (messages_.ask(current_->call())) go_on();
    const auto after = Clock::now();
    quickest_look_ = std::min(quickest_look_, after - before);
    if (after - before < 2 * quickest_look_) return;
    before = after;
  }
}

void MessageSums::finish() {
  while (current_) {
    messages_.wait(current_->call());
    go_on();
  }
}

// The exchange on its way, if there is one, is done.
void MessageSums::go_on() {
  if (current_ && current_->next()) return;
  current_.reset();
  if (waiting_.empty()) return;
  const std::span<float> values = waiting_.front();
  waiting_.pop_front();
  const Call call{.operation = Operation::all_reduce, .type = ElementType::float32, .count = values.size()};
  current_.emplace(messages_, call, values.data());
}

}  // namespace lamina
