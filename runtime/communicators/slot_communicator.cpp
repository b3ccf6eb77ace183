#include "runtime/communicators/slot_communicator.h"

#include "runtime/communicators/pieces.h"
#include "runtime/communicators/tree_reduction.h"

namespace lamina {
namespace {

// Below this every rank sums everything by itself: cheaper than a second exchange.
constexpr std::size_t kWholeReductionBytes = 2048;
constexpr std::size_t kLargestElement = 8;

}  // namespace

void SlotCommunicator::do_barrier() { slots_.exchange({.operation = Operation::barrier}); }

void SlotCommunicator::do_in_library(const std::function<void()>& work) {
  const BlindWait inside(slots_.group(), {.operation = Operation::library});
  work();
}

void SlotCommunicator::do_broadcast(void* values, std::size_t count, ElementType type, int root) {
  const Call call{.operation = Operation::broadcast, .type = type, .root = root, .count = count};
  for_pieces(count * size_of(type), slots_.capacity(), [&](std::size_t first, std::size_t bytes) {
    std::byte* piece = as_bytes(values) + first;
    if (rank() == root) copy_bytes(slots_.outgoing(), piece, bytes);
    slots_.exchange(call);
    if (rank() != root) copy_bytes(piece, slots_.incoming(root), bytes);
  });
}

void SlotCommunicator::do_all_gather(const void* part, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::all_gather, .type = type, .count = count};
  const std::size_t part_bytes = count * size_of(type);
  for_pieces(part_bytes, slots_.capacity(), [&](std::size_t first, std::size_t bytes) {
    copy_bytes(slots_.outgoing(), as_bytes(part) + first, bytes);
    slots_.exchange(call);
    for (std::size_t r = 0; r < ranks(); ++r) {
      const bool is_own = static_cast<int>(r) == rank();
      const std::byte* from = is_own ? as_bytes(part) + first : slots_.incoming(static_cast<int>(r));
      copy_bytes(as_bytes(out) + r * part_bytes + first, from, bytes);
    }
  });
}

void SlotCommunicator::do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::all_to_all, .type = type, .count = count};
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    const auto blocks = incoming_at(static_cast<std::size_t>(rank()) * bytes);
    for (std::size_t r = 0; r < ranks(); ++r)
      copy_bytes(as_bytes(out) + r * stride + first, blocks[r], bytes);
  });
}

void SlotCommunicator::do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) {
  const Call call{.operation = Operation::reduce_scatter, .type = type, .count = count};
  const std::size_t stride = count * size_of(type);
  for_pieces(stride, block_capacity(), [&](std::size_t first, std::size_t bytes) {
    exchange_blocks(call, in, stride, first, bytes);
    const auto blocks = incoming_at(static_cast<std::size_t>(rank()) * bytes);
    reduce_in_tree(blocks, as_bytes(out) + first, bytes / size_of(type), type, Reduction::sum);
  });
}

// Publishes bytes [first, first + bytes) of each rank's block, one after another.
void SlotCommunicator::exchange_blocks(const Call& call, const void* in, std::size_t stride,
                                       std::size_t first, std::size_t bytes) {
  for (std::size_t r = 0; r < ranks(); ++r)
    copy_bytes(slots_.outgoing() + r * bytes, as_bytes(in) + r * stride + first, bytes);
  slots_.exchange(call);
}

void SlotCommunicator::do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) {
  const Call call{.operation = Operation::all_reduce, .type = type, .reduction = reduction, .count = count};
  const std::size_t total = count * size_of(type);
  if (total <= std::min(kWholeReductionBytes, slots_.capacity()))
    return reduce_whole(call, as_bytes(values), count);
  for_pieces(total, slots_.capacity(), [&](std::size_t first, std::size_t bytes) {
    reduce_by_shares(call, as_bytes(values) + first, bytes / size_of(type));
  });
}

void SlotCommunicator::reduce_whole(const Call& call, std::byte* values, std::size_t count) {
  copy_bytes(slots_.outgoing(), values, count * size_of(call.type));
  slots_.exchange(call);
  reduce_in_tree(incoming_at(0), values, count, call.type, call.reduction);
}

// Each rank reduces its share from its peers' slots straight into its own next slot; then all gather the
// shares.
void SlotCommunicator::reduce_by_shares(const Call& call, std::byte* values, std::size_t count) {
  const std::size_t element = size_of(call.type);
  const ElementShare mine = ElementShare::of(count, static_cast<std::size_t>(rank()), ranks());
  copy_bytes(slots_.outgoing(), values, count * element);
  slots_.exchange(call);
  reduce_in_tree(incoming_at(mine.first * element), slots_.outgoing(), mine.count, call.type, call.reduction);
  slots_.exchange(call);
  for (std::size_t r = 0; r < ranks(); ++r) {
    const ElementShare share = ElementShare::of(count, r, ranks());
    copy_bytes(values + share.first * element, slots_.incoming(static_cast<int>(r)), share.count * element);
  }
}

std::span<const std::byte* const> SlotCommunicator::incoming_at(std::size_t offset) {
  sources_.resize(ranks());
  for (std::size_t r = 0; r < ranks(); ++r) sources_[r] = slots_.incoming(static_cast<int>(r)) + offset;
  return sources_;
}

std::size_t SlotCommunicator::block_capacity() const {
  return slots_.capacity() / ranks() / kLargestElement * kLargestElement;
}

}  // namespace lamina
