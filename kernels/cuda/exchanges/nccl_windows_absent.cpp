// Takes the place of NCCL's windows in builds with an NCCL that has none for kernels.
#include "kernels/cuda/exchanges/nccl_windows.h"

namespace lamina::cuda {

PeerMemoryOffer make_nccl_peer_memory(Device&, NcclCommunicator&, Exchange&, std::size_t) {
  return {nullptr, "this program was built with an NCCL older than 2.28"};
}

}  // namespace lamina::cuda
