#include "kernels/cuda/exchange.h"

#include "kernels/cuda/exchanges/alone.h"
#include "kernels/cuda/exchanges/nccl.h"
#include "kernels/cuda/exchanges/staged.h"

namespace lamina::cuda {

std::unique_ptr<Exchange> make_exchange(Device& device, Communicator& group) {
  if (group.size() == 1) return make_exchange_alone(device, group);
  if (auto nccl = make_nccl_exchange(device, group)) return nccl;
  return make_staged_exchange(device, group);
}

}  // namespace lamina::cuda
