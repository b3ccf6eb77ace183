#include "kernels/cuda/exchanges/nccl_window_bases.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <nccl_device.h>
#pragma GCC diagnostic pop

#include "kernels/cuda/launch.h"

namespace lamina::cuda {
namespace {

__global__ void find_window_bases_kernel(ncclWindow_t window, int ranks, unsigned char** bases) {
  const int rank = static_cast<int>(threadIdx.x);
  if (rank < ranks) bases[rank] = static_cast<unsigned char*>(ncclGetLsaPointer(window, 0, rank));
}

}  // namespace

void find_window_bases(const Device& device, ncclWindow_t window, int ranks, unsigned char** bases) {
  launch(device, find_window_bases_kernel, {.grid = dim3(1), .block = dim3(static_cast<unsigned>(ranks))},
         window, ranks, bases);
}

}  // namespace lamina::cuda
