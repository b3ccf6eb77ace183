#include "kernels/cuda/exchanges/staged.h"

#include <algorithm>

namespace lamina::cuda {
namespace {

class StagedExchange final : public Exchange {
 public:
  StagedExchange(Device& device, Communicator& group)
      : device_(device), group_(group), in_(std::size_t{1} << 16), out_(std::size_t{1} << 16) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::string transport() const override { return "staged"; }
  bool is_capturable() const override { return false; }
  std::chrono::milliseconds deadline() const override { return group_.deadline(); }

  void all_gather(const float* part, float* all, std::size_t count) override {
    fetch(part, count, count * ranks());
    group_.all_gather(std::span<const float>(in_.view().first(count)), out_.view().first(count * ranks()));
    send(all, count * ranks());
  }

  void all_to_all(const float* in, float* out, std::size_t count) override {
    fetch(in, count * ranks(), count * ranks());
    group_.all_to_all(std::span<const float>(in_.view().first(count * ranks())),
                      out_.view().first(count * ranks()));
    send(out, count * ranks());
  }

  PeerMemoryOffer make_peer_memory(std::size_t) override {
    return {nullptr,
            "they exchange through the hosts' memory, as NCCL is missing or off, or as ranks share a GPU"};
  }

 private:
  std::size_t ranks() const { return static_cast<std::size_t>(size()); }

  // Waits for the stream, so the copy of the exchange before is over, too.
  void fetch(const float* from, std::size_t in, std::size_t out) {
    const std::size_t wanted = std::max(in, out);
    if (wanted > in_.size()) {
      device_.synchronize();
      in_ = PinnedArray<float>(wanted);
      out_ = PinnedArray<float>(wanted);
    }
    device_.to_host(from, in_.data(), in * sizeof(float));
  }
  void send(float* to, std::size_t count) { device_.to_device(out_.data(), to, count * sizeof(float)); }

  Device& device_;
  Communicator& group_;
  PinnedArray<float> in_, out_;
};

}  // namespace

std::unique_ptr<Exchange> make_staged_exchange(Device& device, Communicator& group) {
  return std::make_unique<StagedExchange>(device, group);
}

}  // namespace lamina::cuda
