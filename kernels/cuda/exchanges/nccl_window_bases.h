// What only device code can ask of a window of NCCL.
#pragma once

#include <nccl.h>

#include "kernels/cuda/device.h"

namespace lamina::cuda {

/// bases [ranks] in device memory: where the window of each rank begins, for kernels of this one.
void find_window_bases(const Device& device, ncclWindow_t window, int ranks, unsigned char** bases);

}  // namespace lamina::cuda
