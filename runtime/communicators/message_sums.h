// BackgroundSums over MPI: messages move whenever the rank's own thread asks after them.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>

#include "runtime/background_sums.h"
#include "runtime/communicators/message_reduction.h"

namespace lamina {

class MessageSums final : public BackgroundSums {
 public:
  /// `messages` are those of `group`, which nobody else uses.
  MessageSums(std::unique_ptr<Communicator> group, Messages& messages)
      : group_(std::move(group)), messages_(messages) {}

  void add(std::span<float> values) override;
  void advance() override;
  void pause() override {}
  void finish() override;

 private:
  void go_on();

  std::unique_ptr<Communicator> group_;
  Messages& messages_;
  std::optional<MessageReduction> current_;
  std::deque<std::span<float>> waiting_;
  std::chrono::steady_clock::duration quickest_look_ = std::chrono::seconds(1);
};

}  // namespace lamina
