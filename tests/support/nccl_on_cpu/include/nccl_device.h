// Stands in for NVIDIA's header, as nccl.h beside it.
#pragma once

#include <nccl_device/core.h>

// NOLINTNEXTLINE(readability-identifier-naming): NVIDIA's name
inline void* ncclGetLsaPointer(ncclWindow_t window, size_t offset, int peer) {
  return window->bases[peer] + offset;
}
