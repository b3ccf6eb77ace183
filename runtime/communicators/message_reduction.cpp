#include "runtime/communicators/message_reduction.h"

#include <algorithm>

#include "runtime/communicators/pieces.h"
#include "runtime/communicators/tree_reduction.h"

namespace lamina {

MessageReduction::MessageReduction(Messages& messages, const Call& call, void* values)
    : messages_(messages),
      call_(call),
      values_(as_bytes(values)),
      total_bytes_(call.count * size_of(call.type)) {
  messages_.start_agreement(call_);
}

bool MessageReduction::next() {
  switch (stage_) {
    case Stage::agreement:
      messages_.require_agreement();
      break;
    case Stage::transpose:
      reduce_share();
      return true;
    case Stage::gather:
      take_piece();
      break;
  }
  if (first_ == total_bytes_) return false;
  start_piece();
  return true;
}

void MessageReduction::start_piece() {
  stage_ = Stage::transpose;
  bytes_ = std::min(total_bytes_ - first_, messages_.block_capacity() * messages_.ranks());
  share_ = ElementShare::width(bytes_ / size_of(call_.type), messages_.ranks());
  const std::size_t share_bytes = share_ * size_of(call_.type);
  messages_.sent().assign(share_bytes * messages_.ranks(), std::byte{0});
  copy_bytes(messages_.sent().data(), values_ + first_, bytes_);
  messages_.start_transpose(share_bytes);
}

void MessageReduction::reduce_share() {
  stage_ = Stage::gather;
  const std::size_t share_bytes = share_ * size_of(call_.type);
  std::byte* reduced = messages_.sent().data();
  reduce_in_tree(messages_.blocks(share_bytes), reduced, share_, call_.type, call_.reduction);
  messages_.start_gather(reduced, share_bytes);
}

void MessageReduction::take_piece() {
  copy_bytes(values_ + first_, messages_.received().data(), bytes_);
  first_ += bytes_;
}

}  // namespace lamina
