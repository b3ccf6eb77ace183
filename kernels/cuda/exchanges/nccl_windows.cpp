#include "kernels/cuda/exchanges/nccl_windows.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "kernels/cuda/exchanges/nccl_window_bases.h"
#include "kernels/cuda/libraries/nccl_windows.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

class NcclPeerMemory final : public PeerMemory {
 public:
  NcclPeerMemory(Device& device, NcclCommunicator& nccl, Exchange& group, std::size_t bytes)
      : device_(device), nccl_(nccl), group_(group), meeting_(device, group) {
    device_.synchronize();
    const std::size_t whole =
        (bytes + NCCL_WIN_REQUIRED_ALIGNMENT - 1) / NCCL_WIN_REQUIRED_ALIGNMENT * NCCL_WIN_REQUIRED_ALIGNMENT;
    verify(windows().MemAlloc(&memory_, whole), "ncclMemAlloc");
    nccl_.run({"window_register"}, [&](ncclComm_t communicator) {
      return windows().CommWindowRegister(communicator, memory_, whole, &window_, NCCL_WIN_COLL_SYMMETRIC);
    });
    if (window_ != nullptr) find_peers();
  }

  ~NcclPeerMemory() override {
    if (!nccl_.is_alive() || std::uncaught_exceptions() > 0) return;  // peers may still store into it
    try {
      end();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "lamina: a window of NCCL did not end in order: %s\n", error.what());
    }
  }

  /// A clause; empty: all is well.
  std::string why_not() const {
    if (window_ == nullptr)
      return "NCCL opens no window, as GPUs do not reach each other or NCCL_CUMEM_ENABLE=0 or "
             "NCCL_WIN_ENABLE=0 is set";
    if (reached_ < group_.size())
      return fmt::format("a GPU reaches the memory of {} GPUs of {}", reached_, group_.size());
    return {};
  }

 private:
  static const NcclWindows& windows() { return *find_nccl_windows(); }

  void find_peers() {
    nccl_.run({"team"}, [&](ncclComm_t communicator) {
      reached_ = windows().TeamLsa(communicator).nRanks;
      return ncclSuccess;
    });
    windows_.count = group_.size();
    windows_.own = group_.rank();
    if (reached_ < windows_.count) return;
    auto bases = device_.allocate<unsigned char*>(kMostPeers);
    find_window_bases(device_, window_, windows_.count, bases.view().data());
    device_.to_host(bases.view().data(), windows_.base, sizeof windows_.base);
  }

  void end() {
    meeting_.put_on_stream();
    device_.synchronize();
    if (window_ != nullptr)
      nccl_.run({"window_deregister"}, [&](ncclComm_t communicator) {
        return windows().CommWindowDeregister(communicator, window_);
      });
    verify(windows().MemFree(memory_), "ncclMemFree");
  }

  Device& device_;
  NcclCommunicator& nccl_;
  Exchange& group_;
  Meeting meeting_;
  void* memory_ = nullptr;
  ncclWindow_t window_ = nullptr;
  int reached_ = 0;
};

/// What can be said before NCCL is asked, the same on all ranks; a clause.
std::string why_no_windows(int ranks) {
  const int version = nccl_version();
  if (ranks > kMostPeers) return fmt::format("at most {} GPUs can do so", kMostPeers);
  if (version < kOldestNcclWithWindows)
    return fmt::format("NCCL {} is older than 2.28", nccl_version_text(version));
  if (find_nccl_windows() == nullptr)
    return fmt::format("NCCL {} lacks functions for windows", nccl_version_text(version));
  if (version / 100 != NCCL_VERSION_CODE / 100)
    return fmt::format("this program was built with NCCL {}, whose windows are not those of {}",
                       nccl_version_text(NCCL_VERSION_CODE), nccl_version_text(version));
  return {};
}

}  // namespace

PeerMemoryOffer make_nccl_peer_memory(Device& device, NcclCommunicator& nccl, Exchange& group,
                                      std::size_t bytes) {
  if (std::string why_not = why_no_windows(group.size()); !why_not.empty()) return {nullptr, why_not};
  auto memory = std::make_unique<NcclPeerMemory>(device, nccl, group, bytes);
  if (std::string why_not = memory->why_not(); !why_not.empty()) return {nullptr, why_not};
  return {std::move(memory), {}};
}

}  // namespace lamina::cuda
