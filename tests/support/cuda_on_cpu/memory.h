// Device memory: mapped so that only device code can touch it, and only what is allocated.
//
// Every host thread allocates in arenas of its own. They are closed (PROT_NONE) except while that thread does
// work of the device, and where closing is put off (Separation) some time longer. What is not allocated -
// before, between and after buffers, and what was freed - is mapped to an empty file, so that a touch is a
// SIGBUS even while the arena is open; a freed address does not come back until its arena is empty and much
// used. The end of a buffer, rounded up to 256 bytes, is the end of its pages. Device code that touches the
// memory of another host thread's arena opens it by the fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"

namespace cuda_on_cpu {

struct Allocation {
  std::byte* start = nullptr;
  std::size_t bytes = 0;  ///< as asked for
  int device = 0;
  std::uint64_t number = 0;  ///< counted from 1 in this process

  std::size_t rounded() const { return (bytes + 255) / 256 * 256; }
};

/// Null where the device's memory is used up.
void* allocate_device(std::size_t bytes, int device);
/// False where nothing begins there. Complains about bytes that were written beside the buffer.
bool free_device(void* pointer);
/// The allocation that holds the byte or ends there.
std::optional<Allocation> find_device(const void* pointer);
/// Whether `bytes` from `pointer` on are in one allocation.
bool is_device(const void* pointer, std::size_t bytes);
/// Whether device memory is mapped there, allocated or not.
bool in_device_space(const void* pointer);
std::size_t device_bytes_in_use(int device);
/// As memset, while the device works. Zeros in large buffers take no time until they are touched.
void fill_device(void* pointer, int value, std::size_t bytes);

void* allocate_host(std::size_t bytes);
bool free_host(void* pointer);
/// Whether the memory is page-locked: a copy may read or write it later.
bool is_page_locked(const void* pointer);

/// Work of the device is done on this thread while one lives.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};
/// Host code that the device runs in between: no DeviceAccess meanwhile.
class HostAccess {
 public:
  HostAccess();
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;
};

/// The host has waited for the device: what this thread left open is closed.
void close_own_memory();
void separate_memory(Separation separation);
/// As at the start of the program.
Separation first_separation();

// --- for the handler of faults ---
bool at_work_on_this_thread();
/// Opens the arena of another thread until this one's work is done; false where it is no closed arena.
bool open_by_fault(const void* address);
/// Like find_device(), or the nearest allocation before; gives up where the registry is in use.
std::optional<Allocation> nearest_without_waiting(const void* address);

}  // namespace cuda_on_cpu
