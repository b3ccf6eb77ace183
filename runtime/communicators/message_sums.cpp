#include "runtime/communicators/message_sums.h"

namespace lamina {

void MessageSums::add(std::span<float> values) {
  waiting_.push_back(values);
  if (!current_) go_on();
  advance();
}

void MessageSums::advance() {
  while (current_ && messages_.ask(current_->call())) go_on();
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
