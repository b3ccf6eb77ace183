#include "kernels/cuda/exchanges/gpu_seats.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <string_view>

#include "kernels/cuda/libraries/nccl.h"
#include "runtime/error.h"
#include "runtime/host_name.h"

namespace lamina::cuda {
namespace {

constexpr const char* kWayOut = "or set LAMINA_NCCL=0 to exchange through the hosts' memory";

bool asks_for(const char* variable, std::string_view value) {
  const char* set = std::getenv(variable);
  return set != nullptr && set == value;
}

bool share_a_gpu(const std::vector<GpuSeat>& seats) {
  for (auto seat = seats.begin(); seat != seats.end(); ++seat) {
    const auto is_same = [&](const GpuSeat& other) {
      return seat->host == other.host && seat->gpu == other.gpu;
    };
    if (std::any_of(seat + 1, seats.end(), is_same)) return true;
  }
  return false;
}

void require_usable_versions(const std::vector<GpuSeat>& seats) {
  const auto by_version = [](const GpuSeat& a, const GpuSeat& b) { return a.nccl_version < b.nccl_version; };
  const auto [oldest, newest] = std::minmax_element(seats.begin(), seats.end(), by_version);
  const std::string old = nccl_version_text(oldest->nccl_version);
  if (oldest->nccl_version < kOldestNccl)
    throw UserError(fmt::format("NCCL {} on {} is too old: install {} or newer there, {}", old,
                                oldest->host.data(), nccl_version_text(kOldestNccl), kWayOut));
  if (oldest->nccl_version != newest->nccl_version)
    throw UserError(fmt::format(
        "the hosts have different versions of NCCL ({} on {}, {} on {}): install the same on all, {}", old,
        oldest->host.data(), nccl_version_text(newest->nccl_version), newest->host.data(), kWayOut));
}

}  // namespace

GpuSeat own_seat(const Device& device) {
  GpuSeat seat{.nccl_version = nccl_version(),
               .is_off = asks_for("LAMINA_NCCL", "0"),
               .may_share = asks_for("LAMINA_NCCL_SHARED_GPU", "1")};
  host_name().copy(seat.host.data(), seat.host.size() - 1);
  verify(cudaDeviceGetPCIBusId(seat.gpu.data(), static_cast<int>(seat.gpu.size()), device.ordinal()),
         "cudaDeviceGetPCIBusId");
  return seat;
}

std::vector<GpuSeat> seats_of(const GpuSeat& own, Communicator& group) {
  std::vector<GpuSeat> seats(static_cast<std::size_t>(group.size()));
  group.all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(seats)));
  return seats;
}

bool can_use_nccl(const std::vector<GpuSeat>& seats) {
  const auto has_none = [](const GpuSeat& seat) { return seat.nccl_version == 0; };
  if (seats.front().is_off || std::any_of(seats.begin(), seats.end(), has_none)) return false;
  if (share_a_gpu(seats) && !seats.front().may_share) return false;
  require_usable_versions(seats);
  return true;
}

}  // namespace lamina::cuda
