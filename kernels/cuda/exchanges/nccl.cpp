#include "kernels/cuda/exchanges/nccl.h"

#include <cstdio>
#include <exception>

#include "kernels/backends.h"
#include "kernels/cuda/exchanges/gpu_seats.h"
#include "kernels/cuda/exchanges/nccl_communicator.h"
#include "kernels/cuda/exchanges/nccl_windows.h"

namespace lamina {
namespace cuda {
namespace {

class NcclExchange final : public Exchange {
 public:
  NcclExchange(Device& device, Communicator& group)
      : device_(device),
        group_(group),
        nccl_(group),
        check_(device.wait_checks(), [this](std::chrono::nanoseconds waited) { nccl_.look(waited); }) {
    for (const std::size_t count : {std::size_t{1}, kLargeCount}) warm_up(count);
  }
  ~NcclExchange() override {
    if (nccl_.is_alive() && std::uncaught_exceptions() == 0) finish_work();
  }

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::string transport() const override { return "nccl"; }
  bool is_capturable() const override { return true; }
  std::chrono::milliseconds deadline() const override { return group_.deadline(); }

  void all_gather(const float* part, float* all, std::size_t count) override {
    if (count == 0) return;
    nccl_.run({"all_gather", count}, [&](ncclComm_t communicator) {
      return nccl().AllGather(part, all, count, ncclFloat32, communicator, device_.stream());
    });
  }

  void all_to_all(const float* in, float* out, std::size_t count) override {
    if (count == 0) return;
    nccl_.run({"all_to_all", count}, [&](ncclComm_t communicator) {
      ncclResult_t first_error = nccl().GroupStart();
      const auto note = [&](ncclResult_t code) {
        if (first_error == ncclSuccess && code != ncclInProgress) first_error = code;
      };
      for (int peer = 0; peer < size(); ++peer) {
        const std::size_t block = static_cast<std::size_t>(peer) * count;
        note(nccl().Send(in + block, count, ncclFloat32, peer, communicator, device_.stream()));
        note(nccl().Recv(out + block, count, ncclFloat32, peer, communicator, device_.stream()));
      }
      const ncclResult_t end = nccl().GroupEnd();
      return first_error == ncclSuccess ? end : first_error;
    });
  }

  PeerMemoryOffer make_peer_memory(std::size_t bytes) override {
    return make_nccl_peer_memory(device_, nccl_, *this, bytes);
  }

 private:
  /// Large enough for other ways of NCCL than those of small messages.
  static constexpr std::size_t kLargeCount = std::size_t{1} << 16;

  // NCCL connects ranks when they first exchange; a graph's capture is no place for that.
  void warm_up(std::size_t count) {
    const std::size_t all = count * static_cast<std::size_t>(size());
    auto in = device_.allocate<float>(all), out = device_.allocate<float>(all);
    all_gather(in.view().data(), out.view().data(), count);
    all_to_all(in.view().data(), out.view().data(), count);
    device_.synchronize();
  }

  void finish_work() noexcept {
    try {
      device_.synchronize();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "lamina: exchanges over NCCL did not end in order: %s\n", error.what());
    }
  }

  Device& device_;
  Communicator& group_;
  NcclCommunicator nccl_;
  WaitChecks::Entry check_;  ///< gone before nccl_
};

}  // namespace

std::unique_ptr<Exchange> make_nccl_exchange(Device& device, Communicator& group) {
  if (!can_use_nccl(seats_of(own_seat(device), group))) return nullptr;
  return std::make_unique<NcclExchange>(device, group);
}

}  // namespace cuda

std::string nccl_description() {
  if (cuda::find_nccl() == nullptr) return "not found: " + cuda::why_no_nccl();
  return cuda::nccl_version_text(cuda::nccl_version());
}

}  // namespace lamina
