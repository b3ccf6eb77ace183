#include "runtime/communicators/message_sums.h"

#include <chrono>

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

/// A look that moves nothing takes less.
constexpr std::chrono::microseconds kIdleLook{3};
constexpr std::chrono::milliseconds kMostAtOnce{2};

}  // namespace

void MessageSums::add(std::span<float> values) {
  waiting_.push_back(values);
  if (!current_) go_on();
  advance();
}

// A look moves as much as MPI takes at once, some ten kilobytes over TCP; one that took long has moved
// something, and there may be more.
void MessageSums::advance() {
  const auto start = Clock::now();
  auto before = start;
  while (current_ && before - start < kMostAtOnce) {
    if (messages_.ask(current_->call())) go_on();
    const auto after = Clock::now();
    if (after - before < kIdleLook) return;
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
