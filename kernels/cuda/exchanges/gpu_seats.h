// Which GPU each rank of a group has, and whether NCCL can connect them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "runtime/communicator.h"

namespace lamina::cuda {

/// What a rank tells the others; fit to travel.
struct GpuSeat {
  std::array<char, 64> host{};
  std::array<char, 16> gpu{};     ///< its place on the PCI bus: "0000:1b:00.0"
  std::int32_t nccl_version = 0;  ///< 0: none found
  bool is_off = false;            ///< LAMINA_NCCL=0
  bool may_share = false;         ///< LAMINA_NCCL_SHARED_GPU=1
};

GpuSeat own_seat(const Device& device);
/// By rank. Collective.
std::vector<GpuSeat> seats_of(const GpuSeat& own, Communicator& group);

/// Whether the ranks are to use NCCL; what the environment asks for counts on rank 0, as mpirun passes it on
/// to its own host only. UserError where their versions are too old or differ. The same on all ranks.
bool can_use_nccl(const std::vector<GpuSeat>& seats);

}  // namespace lamina::cuda
