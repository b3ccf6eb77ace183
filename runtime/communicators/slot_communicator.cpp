#include "runtime/communicators/slot_communicator.h"

#include "runtime/communicators/pieces.h"
#include "runtime/communicators/tree_reduction.h"

namespace lamina {
namespace {

// Below this every rank sums everything by itself: cheaper than a second exchange. Two ranks always do, for
// which it takes no more bytes either.
constexpr std::size_t kWholeReductionBytes = 2048;
constexpr std::size_t kLargestElement = 8;

}  // namespace

void SlotCommunicator::do_barrier() { slots_.exchange({.operation = Operation::barrier}); }

void SlotCommunicator::do_conclude() { slots_.exchange({.operation = Operation::conclude}); }

void SlotCommunicator::do_in_library(const std::function<void()>& work) {
  const BlindWait inside(slots_.group(), {.operation = Operation::library});
  work();
}

void SlotCommunicator::do_broadcast(void* values, std::size_t count, ElementType type, int root) {
  const Call call{.operation = Operation::broadcast, .type = type, .root = root, .count = count};
  for_pieces(count * size_of(type), slots_.capacity(), [&](std::size_t first, std::size_t bytes) {
    std::byte* piece = as_bytes(values) + first;
    if (rank() == root) publish_bytes(slots_.outgoing(), piece, bytes);
    slots_.exchange(call);
    if (rank() != root) copy_bytes(piece, slots_.incoming(root), bytes);
  });
}

// A rank's own part is taken while the others' are on their way; theirs as they come, where they lie. Each
// rank begins with its right neighbour's, so that they do not all read from one.
void SlotCommunicator::do_all_gather(const void* part, std::size_t count, ElementType type,
                                     const TakePiece& take) {
  const Call call{.operation = Operation::all_gather, .type = type, .count = count};
  const std::size_t element = size_of(type);
  for_pieces(count, slots_.capacity() / element, [&](std::size_t first, std::size_t size) {
    const std::byte* own = as_bytes(part) + first * element;
    publish_bytes(slots_.outgoing(), own, size * element);
    Slots::Exchange exchange(slots_, call);
    take(rank(), first, own, size);
    for (int i = 1; i < slots_.size(); ++i) {
      const int peer = (rank() + i) % slots_.size();
      if (exchange.await(peer)) take(peer, first, slots_.incoming(peer), size);
    }
    exchange.finish();
  });
}

void SlotCommunicator::do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::all_to_all, .type = type, .count = count};
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    const auto blocks = exchange_blocks(call, in, stride, first, bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * stride + first, blocks[r], bytes);
  });
}

void SlotCommunicator::do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::reduce_scatter, .type = type, .count = count};
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    const auto blocks = exchange_blocks(call, in, stride, first, bytes);
    reduce_in_tree(blocks, as_bytes(out) + first, bytes / size_of(type), type, Reduction::sum);
  });
}

// Publishes bytes [first, first + bytes) of the peers' blocks, each at its rank's place. Returns this rank's,
// by source.
std::span<const std::byte* const> SlotCommunicator::exchange_blocks(const Call& call, const void* in,
                                                                    std::size_t stride, std::size_t first,
                                                                    std::size_t bytes) {
  const auto own = static_cast<std::size_t>(rank());
  for (std::size_t r = 0; r < ranks(); ++r)
    if (r != own) publish_bytes(slots_.outgoing() + r * bytes, as_bytes(in) + r * stride + first, bytes);
  slots_.exchange(call);
  return incoming_at(own * bytes, as_bytes(in) + own * stride + first);
}

void SlotCommunicator::do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) {
  const Call call{.operation = Operation::all_reduce, .type = type, .reduction = reduction, .count = count};
  const std::size_t total = count * size_of(type);
  const bool whole = size() == 2 || total <= kWholeReductionBytes;
  for_pieces(total, slots_.capacity(), [&](std::size_t first, std::size_t bytes) {
    std::byte* piece = as_bytes(values) + first;
    whole ? reduce_whole(call, piece, bytes / size_of(type))
          : reduce_by_shares(call, piece, bytes / size_of(type));
  });
}

void SlotCommunicator::reduce_whole(const Call& call, std::byte* values, std::size_t count) {
  publish_bytes(slots_.outgoing(), values, count * size_of(call.type));
  slots_.exchange(call);
  reduce_in_tree(incoming_at(0, slots_.incoming(rank())), values, count, call.type, call.reduction);
}

// Each rank reduces its share from its peers' slots straight into its own next slot; then all gather the
// shares.
void SlotCommunicator::reduce_by_shares(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t element = size_of(call.type);
  const auto share_of = [&](int r) { return ElementShare::of(count, static_cast<std::size_t>(r), ranks()); };
  const auto copy_share = [&](std::byte* to, const std::byte* from, const ElementShare& share) {
    copy_bytes(to + share.first * element, from + share.first * element, share.count * element);
  };
  const ElementShare mine = share_of(rank());
  for (int r = 0; r < size(); ++r)
    if (r != rank()) copy_share(slots_.outgoing(), values, share_of(r));
  slots_.exchange(call);
  std::byte* sums = slots_.outgoing() + mine.first * element;
  reduce_in_tree(incoming_at(mine.first * element, values + mine.first * element), sums, mine.count,
                 call.type, call.reduction);
  slots_.exchange(call);
  for (int r = 0; r < size(); ++r) copy_share(values, slots_.incoming(r), share_of(r));
}

// `own`: where this rank has what it did not publish.
std::span<const std::byte* const> SlotCommunicator::incoming_at(std::size_t offset, const std::byte* own) {
  sources_.resize(ranks());
  for (int r = 0; r < size(); ++r)
    sources_[static_cast<std::size_t>(r)] = r == rank() ? own : slots_.incoming(r) + offset;
  return sources_;
}

std::size_t SlotCommunicator::block_capacity() const {
  return slots_.capacity() / ranks() / kLargestElement * kLargestElement;
}

}  // namespace lamina
