// Collectives over device memory, ordered on the device's stream: what kernels exchange over the model axis,
// and gradients over the data axis. Only copies travel; sums are made by kernels, in the order of
// runtime/tree.h, so that the bits do not depend on the transport.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/peer_memory.h"
#include "runtime/communicator.h"

namespace lamina::cuda {

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "none", "staged", "nccl": for people.
  virtual std::string transport() const = 0;
  /// Whether the calls below only put work on the stream, so that a graph can be captured around them. Else
  /// they wait for the stream and for the other ranks.
  virtual bool is_capturable() const = 0;
  /// As the group's, now: no rank waits longer for the others. 0: for ever.
  virtual std::chrono::milliseconds deadline() const = 0;

  /// part: [count]; all: [size * count], the part of rank r at r * count. `part` may be this rank's place in
  /// `all`. Device memory. Collective.
  virtual void all_gather(const float* part, float* all, std::size_t count) = 0;
  /// in, out: [size * count], apart; block r of `in` goes to rank r, block r of `out` came from it.
  virtual void all_to_all(const float* in, float* out, std::size_t count) = 0;

  /// `bytes` on the GPU of every rank, for kernels of all ranks to store into; or, on all ranks, why not.
  /// Waits for the stream. Collective, and must end before the exchange.
  virtual PeerMemoryOffer make_peer_memory(std::size_t bytes) = 0;
};

/// A point that the streams of all ranks pass together: nothing that comes after it on one of them begins
/// before all that comes before it on the others is done.
class Meeting {
 public:
  /// Both must outlive it.
  Meeting(Device& device, Exchange& group)
      : group_(group),
        own_(device.allocate<float>(1)),
        all_(device.allocate<float>(static_cast<std::size_t>(group.size()))) {}

  /// Collective.
  void put_on_stream() {
    if (group_.size() > 1) group_.all_gather(own_.view().data(), all_.view().data(), 1);
  }

 private:
  Exchange& group_;
  Buffer<float> own_, all_;
};

/// Over the ranks of `group`, which must outlive it, each with a Device of its own. Through NCCL where the
/// build has it and all ranks have GPUs of their own; else through page-locked host memory and `group`.
/// Collective.
std::unique_ptr<Exchange> make_exchange(Device& device, Communicator& group);

}  // namespace lamina::cuda
