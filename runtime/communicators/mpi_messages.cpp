// MPI ranks that do not share a node, or shall not use that they do: MPI's own collectives. It only moves
// data; sums are made here, in the tree.
#include <exception>

#include "runtime/communicators/message_reduction.h"
#include "runtime/communicators/message_sums.h"
#include "runtime/communicators/pieces.h"
#include "runtime/communicators/tree_reduction.h"

namespace lamina {
namespace {

// Below this every rank sums everything by itself: one message round instead of two. Two ranks always do, for
// which it takes no more bytes either.
constexpr std::size_t kWholeReductionBytes = 4096;

class MessageCommunicator final : public Communicator {
 public:
  explicit MessageCommunicator(MpiGroup group) : group_(std::move(group)), watched_(group_.watched()) {}

  ~MessageCommunicator() override {
    if (!leave_together()) group_.comm.forget();
    watched_.close();
  }

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size; }
  std::string transport() const override { return size() == 1 ? "self" : "mpi"; }
  const void* native_handle() const override { return &group_.comm.get(); }
  void abandon(const std::string& reason) noexcept override {
    group_.job->alarm().raise_failure(group_.names[static_cast<std::size_t>(rank())], reason.c_str());
  }
  void require_peers() override { group_.job->alarm().throw_if_raised(); }

  void set_deadline(std::chrono::milliseconds limit) override { watched_.watch().set_deadline(limit); }
  std::chrono::milliseconds deadline() const override { return watched_.watch().deadline(); }
  void note_step(std::int64_t step) override { watched_.watch().status().note_step(step); }

 private:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    agree({.operation = Operation::split});
    const BlindWait inside_mpi(watched_, {.operation = Operation::split});
    return make_mpi_communicator(group_.split(color, key, watched_.next_child(color)));
  }
  void do_rename(const std::string& name) override { watched_.rename(name); }
  void do_in_library(const std::function<void()>& work) override {
    const BlindWait inside(watched_, {.operation = Operation::library});
    work();
  }
  void do_barrier() override { agree({.operation = Operation::barrier}); }
  void do_conclude() override { agree({.operation = Operation::conclude}); }
  std::unique_ptr<BackgroundSums> do_make_background_sums() override;
  void do_broadcast(void* values, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* part, std::size_t count, ElementType type, const TakePiece& take) override;
  void do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) override;
  void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) override;
  void do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) override;

  void agree(const Call& call);
  bool leave_together() noexcept;
  void gather(const Call& call, const void* part, std::size_t bytes);
  void exchange_blocks(const Call& call, const void* in, std::size_t stride, std::size_t first,
                       std::size_t bytes);
  void reduce_whole(const Call& call, std::byte* values, std::size_t count);
  std::size_t ranks() const { return messages_.ranks(); }

  MpiGroup group_;
  WatchedGroup watched_;
  Messages messages_{group_, watched_};
};

void MessageCommunicator::agree(const Call& call) {
  if (size() == 1) return;
  messages_.start_agreement(call);
  messages_.wait(call);
  messages_.require_agreement();
}

bool MessageCommunicator::leave_together() noexcept {
  if (std::uncaught_exceptions() > 0 || !messages_.is_idle()) return false;
  try {
    agree({.operation = Operation::leave});
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

void MessageCommunicator::do_broadcast(void* values, std::size_t count, ElementType type, int root) {
  const Call call{.operation = Operation::broadcast, .type = type, .root = root, .count = count};
  agree(call);
  for_pieces(count * size_of(type), messages_.piece_bytes(), [&](std::size_t first, std::size_t bytes) {
    std::byte* piece = as_bytes(values) + first;
    messages_.received().resize(bytes);
    if (rank() == root) copy_bytes(messages_.received().data(), piece, bytes);
    messages_.start_broadcast(root, bytes);
    messages_.wait(call);
    copy_bytes(piece, messages_.received().data(), bytes);
  });
}

void MessageCommunicator::do_all_gather(const void* part, std::size_t count, ElementType type,
                                        const TakePiece& take) {
  const Call call{.operation = Operation::all_gather, .type = type, .count = count};
  agree(call);
  const std::size_t element = size_of(type);
  for_pieces(count, messages_.block_capacity() / element, [&](std::size_t first, std::size_t size) {
    const std::size_t bytes = size * element;
    gather(call, as_bytes(part) + first * element, bytes);
    for (int r = 0; r < group_.size; ++r)
      take(r, first, messages_.received().data() + static_cast<std::size_t>(r) * bytes, size);
  });
}

void MessageCommunicator::do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::all_to_all, .type = type, .count = count};
  agree(call);
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, messages_.block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * stride + first, messages_.received().data() + r * bytes, bytes);
  });
}

void MessageCommunicator::do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::reduce_scatter, .type = type, .count = count};
  agree(call);
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, messages_.block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    reduce_in_tree(messages_.blocks(bytes), as_bytes(out) + first, bytes / size_of(type), type,
                   Reduction::sum);
  });
}

void MessageCommunicator::do_all_reduce(void* values, std::size_t count, ElementType type,
                                        Reduction reduction) {
  const Call call{.operation = Operation::all_reduce, .type = type, .reduction = reduction, .count = count};
  const std::size_t total = count * size_of(type);
  if (size() == 2 || total <= kWholeReductionBytes) {
    agree(call);
    return for_pieces(total, messages_.block_capacity(), [&](std::size_t first, std::size_t bytes) {
      reduce_whole(call, as_bytes(values) + first, bytes / size_of(type));
    });
  }
  MessageReduction whole(messages_, call, values);
  do messages_.wait(call);
  while (whole.next());
}

void MessageCommunicator::reduce_whole(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t bytes = count * size_of(call.type);
  gather(call, values, bytes);
  reduce_in_tree(messages_.blocks(bytes), values, count, call.type, call.reduction);
}

std::unique_ptr<BackgroundSums> MessageCommunicator::do_make_background_sums() {
  if (size() == 1) return nullptr;
  agree({.operation = Operation::split});
  const BlindWait inside_mpi(watched_, {.operation = Operation::split});
  auto own = std::make_unique<MessageCommunicator>(group_.split(0, rank(), watched_.next_child(0)));
  own->do_rename(name());
  Messages& messages = own->messages_;
  return std::make_unique<MessageSums>(std::move(own), messages);
}

void MessageCommunicator::exchange_blocks(const Call& call, const void* in, std::size_t stride,
                                          std::size_t first, std::size_t bytes) {
  messages_.sent().resize(bytes * ranks());
  for (std::size_t r = 0; r < ranks(); ++r)
    copy_bytes(messages_.sent().data() + r * bytes, as_bytes(in) + r * stride + first, bytes);
  messages_.start_transpose(bytes);
  messages_.wait(call);
}

// part [bytes] of each rank -> received [ranks, bytes].
void MessageCommunicator::gather(const Call& call, const void* part, std::size_t bytes) {
  messages_.start_gather(part, bytes);
  messages_.wait(call);
}

}  // namespace

std::unique_ptr<Communicator> make_message_communicator(MpiGroup group) {
  return std::make_unique<MessageCommunicator>(std::move(group));
}

}  // namespace lamina
