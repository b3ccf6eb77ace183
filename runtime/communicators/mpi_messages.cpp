// MPI ranks that do not share a node, or shall not use that they do: MPI's own collectives. It only moves
// data; sums are made here, in the tree.
#include <exception>

#include "runtime/communicators/backoff.h"
#include "runtime/communicators/call.h"
#include "runtime/communicators/mpi_group.h"
#include "runtime/communicators/pieces.h"
#include "runtime/communicators/tree_reduction.h"

namespace lamina {
namespace {

// Below this every rank sums everything by itself: one message round instead of two. Two ranks always do, for
// which it takes no more bytes either.
constexpr std::size_t kWholeReductionBytes = 4096;
constexpr std::size_t kLargestElement = 8;

/// What is on its way. MPI reads and writes here until the request is done.
struct Transfer {
  Call mine;
  std::vector<Call> calls;
  std::vector<std::byte> sent, received;  ///< [ranks, bytes of a block]
  MPI_Request request = MPI_REQUEST_NULL;
};

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
  void do_broadcast(void* values, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* part, std::size_t count, ElementType type, const TakePiece& take) override;
  void do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) override;
  void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) override;
  void do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) override;

  void agree(const Call& call);
  bool leave_together() noexcept;
  void finish(const Call& call);
  void share(const Call& call, std::size_t bytes);
  void gather(const Call& call, const void* part, std::size_t bytes);
  void transpose(const Call& call, std::size_t bytes);
  void exchange_blocks(const Call& call, const void* in, std::size_t stride, std::size_t first,
                       std::size_t bytes);
  void reduce_whole(const Call& call, std::byte* values, std::size_t count);
  void reduce_by_shares(const Call& call, std::byte* values, std::size_t count);
  std::vector<const std::byte*> blocks(std::size_t bytes) const;
  std::size_t ranks() const { return static_cast<std::size_t>(group_.size); }
  std::size_t block_capacity() const;

  MpiGroup group_;
  WatchedGroup watched_;
  std::unique_ptr<Transfer> transfer_ = std::make_unique<Transfer>();
};

// All data moves after this, so that no rank begins an exchange that a peer will never enter.
void MessageCommunicator::agree(const Call& call) {
  if (size() == 1) return;
  group_.job->alarm().throw_if_raised();
  Transfer& t = *transfer_;
  t.mine = call;
  t.calls.resize(ranks());
  must(MPI_Iallgather(&t.mine, sizeof(Call), MPI_BYTE, t.calls.data(), sizeof(Call), MPI_BYTE,
                      group_.comm.get(), &t.request),
       "MPI_Iallgather");
  finish(call);
  if (const auto text = disagreement(transfer_->calls, group_.names)) watched_.watch().give_up(*text);
}

// Waits for the request of the transfer. Where that is given up, what MPI may still write to stays for ever.
void MessageCommunicator::finish(const Call& call) {
  const Span span(SpanKind::waiting, "wait for peers");
  watched_.enter(call);
  try {
    Backoff backoff;
    LongWait wait(watched_.watch());
    while (!is_done(transfer_->request)) {
      group_.job->alarm().throw_if_raised();
      backoff.pause();
      if (backoff.is_long()) wait.look();
    }
  } catch (const std::exception&) {
    static_cast<void>(transfer_.release());
    transfer_ = std::make_unique<Transfer>();
    throw;
  }
  watched_.leave();
}

bool MessageCommunicator::leave_together() noexcept {
  if (std::uncaught_exceptions() > 0) return false;
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
  for_pieces(count * size_of(type), group_.job->options().piece_bytes,
             [&](std::size_t first, std::size_t bytes) {
               std::byte* piece = as_bytes(values) + first;
               transfer_->received.resize(bytes);
               if (rank() == root) copy_bytes(transfer_->received.data(), piece, bytes);
               share(call, bytes);
               copy_bytes(piece, transfer_->received.data(), bytes);
             });
}

void MessageCommunicator::do_all_gather(const void* part, std::size_t count, ElementType type,
                                        const TakePiece& take) {
  const Call call{.operation = Operation::all_gather, .type = type, .count = count};
  agree(call);
  const std::size_t element = size_of(type);
  for_pieces(count, block_capacity() / element, [&](std::size_t first, std::size_t size) {
    const std::size_t bytes = size * element;
    gather(call, as_bytes(part) + first * element, bytes);
    for (int r = 0; r < group_.size; ++r)
      take(r, first, transfer_->received.data() + static_cast<std::size_t>(r) * bytes, size);
  });
}

void MessageCommunicator::do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::all_to_all, .type = type, .count = count};
  agree(call);
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * stride + first, transfer_->received.data() + r * bytes, bytes);
  });
}

void MessageCommunicator::do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::reduce_scatter, .type = type, .count = count};
  agree(call);
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    reduce_in_tree(blocks(bytes), as_bytes(out) + first, bytes / size_of(type), type, Reduction::sum);
  });
}

void MessageCommunicator::do_all_reduce(void* values, std::size_t count, ElementType type,
                                        Reduction reduction) {
  const Call call{.operation = Operation::all_reduce, .type = type, .reduction = reduction, .count = count};
  agree(call);
  const std::size_t total = count * size_of(type);
  if (size() == 2 || total <= kWholeReductionBytes)
    return for_pieces(total, block_capacity(), [&](std::size_t first, std::size_t bytes) {
      reduce_whole(call, as_bytes(values) + first, bytes / size_of(type));
    });
  for_pieces(total, block_capacity() * ranks(), [&](std::size_t first, std::size_t bytes) {
    reduce_by_shares(call, as_bytes(values) + first, bytes / size_of(type));
  });
}

void MessageCommunicator::reduce_whole(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t bytes = count * size_of(call.type);
  gather(call, values, bytes);
  reduce_in_tree(blocks(bytes), values, count, call.type, call.reduction);
}

// Each rank gets its share of the others' values, reduces it, and all gather the shares. The last rank's is
// filled up to the width of the others.
void MessageCommunicator::reduce_by_shares(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t width = ElementShare::width(count, ranks());
  const std::size_t bytes = count * size_of(call.type), share_bytes = width * size_of(call.type);
  transfer_->sent.assign(share_bytes * ranks(), std::byte{0});
  copy_bytes(transfer_->sent.data(), values, bytes);
  transpose(call, share_bytes);
  reduce_in_tree(blocks(share_bytes), transfer_->sent.data(), width, call.type, call.reduction);
  gather(call, transfer_->sent.data(), share_bytes);
  copy_bytes(values, transfer_->received.data(), bytes);
}

void MessageCommunicator::exchange_blocks(const Call& call, const void* in, std::size_t stride,
                                          std::size_t first, std::size_t bytes) {
  transfer_->sent.resize(bytes * ranks());
  for (std::size_t r = 0; r < ranks(); ++r)
    copy_bytes(transfer_->sent.data() + r * bytes, as_bytes(in) + r * stride + first, bytes);
  transpose(call, bytes);
}

// sent [ranks, bytes], block r to rank r -> received [ranks, bytes], block r from rank r.
void MessageCommunicator::transpose(const Call& call, std::size_t bytes) {
  Transfer& t = *transfer_;
  t.received.resize(bytes * ranks());
  must(MPI_Ialltoall(t.sent.data(), static_cast<int>(bytes), MPI_BYTE, t.received.data(),
                     static_cast<int>(bytes), MPI_BYTE, group_.comm.get(), &t.request),
       "MPI_Ialltoall");
  finish(call);
}

// part [bytes] of each rank -> received [ranks, bytes].
void MessageCommunicator::gather(const Call& call, const void* part, std::size_t bytes) {
  Transfer& t = *transfer_;
  t.sent.resize(std::max(t.sent.size(), bytes));
  copy_bytes(t.sent.data(), part, bytes);
  t.received.resize(bytes * ranks());
  must(MPI_Iallgather(t.sent.data(), static_cast<int>(bytes), MPI_BYTE, t.received.data(),
                      static_cast<int>(bytes), MPI_BYTE, group_.comm.get(), &t.request),
       "MPI_Iallgather");
  finish(call);
}

// received [bytes] of the root -> received of all.
void MessageCommunicator::share(const Call& call, std::size_t bytes) {
  Transfer& t = *transfer_;
  must(MPI_Ibcast(t.received.data(), static_cast<int>(bytes), MPI_BYTE, call.root, group_.comm.get(),
                  &t.request),
       "MPI_Ibcast");
  finish(call);
}

std::vector<const std::byte*> MessageCommunicator::blocks(std::size_t bytes) const {
  std::vector<const std::byte*> all;
  for (std::size_t r = 0; r < ranks(); ++r) all.push_back(transfer_->received.data() + r * bytes);
  return all;
}

std::size_t MessageCommunicator::block_capacity() const {
  const std::size_t block = group_.job->options().piece_bytes / ranks() / kLargestElement * kLargestElement;
  return std::max(block, kLargestElement);
}

}  // namespace

std::unique_ptr<Communicator> make_message_communicator(MpiGroup group) {
  return std::make_unique<MessageCommunicator>(std::move(group));
}

}  // namespace lamina
