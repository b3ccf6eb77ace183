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

// Below this every rank sums everything by itself: one message round instead of two.
constexpr std::size_t kWholeReductionBytes = 4096;
constexpr std::size_t kLargestElement = 8;

/// The ranks' calls on their way. MPI writes here until the request is done.
struct CallExchange {
  Call mine;
  std::vector<Call> all;
  MPI_Request request = MPI_REQUEST_NULL;
};

bool is_done(MPI_Request& request) {
  int done = 0;
  must(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

class MessageCommunicator final : public Communicator {
 public:
  explicit MessageCommunicator(MpiGroup group) : group_(std::move(group)) {}

  ~MessageCommunicator() override {
    if (!leave_together()) group_.comm.forget();
  }

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size; }
  std::string transport() const override { return size() == 1 ? "self" : "mpi"; }
  const void* native_handle() const override { return &group_.comm.get(); }
  void abandon(const std::string& reason) noexcept override {
    group_.job->alarm().raise_failure(group_.names[static_cast<std::size_t>(rank())], reason.c_str());
  }

 private:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    agree({.operation = Operation::split});
    return make_mpi_communicator(group_.split(color, key));
  }
  void do_barrier() override { agree({.operation = Operation::barrier}); }
  void do_broadcast(void* values, std::size_t count, ElementType type, int root) override;
  void do_all_gather(const void* part, void* out, std::size_t count, ElementType type) override;
  void do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) override;
  void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) override;
  void do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) override;

  void agree(const Call& call);
  bool leave_together() noexcept;
  void gather(const void* part, std::size_t bytes);
  void transpose(std::size_t bytes);
  void exchange_blocks(const void* in, std::size_t stride, std::size_t first, std::size_t bytes);
  void reduce_whole(const Call& call, std::byte* values, std::size_t count);
  void reduce_by_shares(const Call& call, std::byte* values, std::size_t count);
  std::vector<const std::byte*> blocks(std::size_t bytes) const;
  std::size_t ranks() const { return static_cast<std::size_t>(group_.size); }
  std::size_t block_capacity() const;

  MpiGroup group_;
  std::vector<std::byte> sent_, received_;  ///< [ranks, bytes of a block]
};

// All data moves after this, so that no rank is inside a call of MPI that a peer will never enter. The wait
// for a peer that has failed ends with the alarm; MPI may still write to the exchange then, so it stays.
void MessageCommunicator::agree(const Call& call) {
  if (size() == 1) return;
  Alarm& alarm = group_.job->alarm();
  alarm.throw_if_raised();
  auto calls = std::make_unique<CallExchange>(CallExchange{call, std::vector<Call>(ranks())});
  must(MPI_Iallgather(&calls->mine, sizeof(Call), MPI_BYTE, calls->all.data(), sizeof(Call), MPI_BYTE,
                      group_.comm.get(), &calls->request),
       "MPI_Iallgather");
  Backoff backoff;
  while (!is_done(calls->request)) {
    if (alarm.raised()) {
      static_cast<void>(calls.release());
      alarm.throw_if_raised();
    }
    backoff.pause();
  }
  if (const auto text = disagreement(calls->all, group_.names)) {
    alarm.raise(text->c_str());
    throw PeerError(*text);
  }
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
  agree({.operation = Operation::broadcast, .type = type, .root = root, .count = count});
  for_pieces(
      count * size_of(type), group_.job->options().piece_bytes, [&](std::size_t first, std::size_t bytes) {
        must(MPI_Bcast(as_bytes(values) + first, static_cast<int>(bytes), MPI_BYTE, root, group_.comm.get()),
             "MPI_Bcast");
      });
}

void MessageCommunicator::do_all_gather(const void* part, void* out, std::size_t count, ElementType type) {
  agree({.operation = Operation::all_gather, .type = type, .count = count});
  const std::size_t part_bytes = count * size_of(type);
  for_pieces(part_bytes, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    gather(as_bytes(part) + first, bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * part_bytes + first, received_.data() + r * bytes, bytes);
  });
}

void MessageCommunicator::do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) {
  agree({.operation = Operation::all_to_all, .type = type, .count = count});
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(in, stride, first, bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * stride + first, received_.data() + r * bytes, bytes);
  });
}

void MessageCommunicator::do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) {
  agree({.operation = Operation::reduce_scatter, .type = type, .count = count});
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(in, stride, first, bytes);
    reduce_in_tree(blocks(bytes), as_bytes(out) + first, bytes / size_of(type), type, Reduction::sum);
  });
}

void MessageCommunicator::do_all_reduce(void* values, std::size_t count, ElementType type,
                                        Reduction reduction) {
  const Call call{.operation = Operation::all_reduce, .type = type, .reduction = reduction, .count = count};
  agree(call);
  const std::size_t total = count * size_of(type);
  if (total <= std::min(kWholeReductionBytes, block_capacity())) {
    return reduce_whole(call, as_bytes(values), count);
  }
  for_pieces(total, block_capacity() * ranks(), [&](std::size_t first, std::size_t bytes) {
    reduce_by_shares(call, as_bytes(values) + first, bytes / size_of(type));
  });
}

void MessageCommunicator::reduce_whole(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t bytes = count * size_of(call.type);
  gather(values, bytes);
  reduce_in_tree(blocks(bytes), values, count, call.type, call.reduction);
}

// Each rank gets its share of the others' values, reduces it, and all gather the shares. The last rank's is
// filled up to the width of the others.
void MessageCommunicator::reduce_by_shares(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t width = ElementShare::width(count, ranks());
  const std::size_t bytes = count * size_of(call.type), share_bytes = width * size_of(call.type);
  sent_.assign(share_bytes * ranks(), std::byte{0});
  copy_bytes(sent_.data(), values, bytes);
  transpose(share_bytes);
  reduce_in_tree(blocks(share_bytes), sent_.data(), width, call.type, call.reduction);
  gather(sent_.data(), share_bytes);
  copy_bytes(values, received_.data(), bytes);
}

void MessageCommunicator::exchange_blocks(const void* in, std::size_t stride, std::size_t first,
                                          std::size_t bytes) {
  sent_.resize(bytes * ranks());
  for (std::size_t r = 0; r < ranks(); ++r)
    copy_bytes(sent_.data() + r * bytes, as_bytes(in) + r * stride + first, bytes);
  transpose(bytes);
}

// sent_ [ranks, bytes], block r to rank r -> received_ [ranks, bytes], block r from rank r.
void MessageCommunicator::transpose(std::size_t bytes) {
  received_.resize(bytes * ranks());
  must(MPI_Alltoall(sent_.data(), static_cast<int>(bytes), MPI_BYTE, received_.data(),
                    static_cast<int>(bytes), MPI_BYTE, group_.comm.get()),
       "MPI_Alltoall");
}

// part [bytes] of each rank -> received_ [ranks, bytes].
void MessageCommunicator::gather(const void* part, std::size_t bytes) {
  received_.resize(bytes * ranks());
  must(MPI_Allgather(part, static_cast<int>(bytes), MPI_BYTE, received_.data(), static_cast<int>(bytes),
                     MPI_BYTE, group_.comm.get()),
       "MPI_Allgather");
}

std::vector<const std::byte*> MessageCommunicator::blocks(std::size_t bytes) const {
  std::vector<const std::byte*> all;
  for (std::size_t r = 0; r < ranks(); ++r) all.push_back(received_.data() + r * bytes);
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
