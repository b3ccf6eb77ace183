// What tests of the CUDA backend set and ask of the emulated GPU, beside NVIDIA's interface.
#pragma once

#include <cstddef>
#include <string>

namespace cuda_on_cpu {

/// Everything below as at the start of the program, and this thread's errors forgotten.
void reset();

/// How many devices there are; 0: every call fails with cudaErrorNoDevice. 1 at first.
void set_device_count(int devices);
/// Multiprocessors of every device; 4 at first.
void set_multiprocessors(int count);
/// Bytes of every device; where they are used up, allocations fail with cudaErrorMemoryAllocation.
void set_memory(std::size_t bytes);
/// Bytes that this process has allocated on a device.
std::size_t memory_in_use(int device = 0);

/// The order in which threads and blocks run, and the nodes of a graph that do not depend on each other:
/// 0, as at first, in order; otherwise one of many, the same for the same seed.
void set_schedule_seed(unsigned seed);

/// Off at first: work is done when it is issued. Lazy: only when the host or another stream waits for it, so
/// that what reads too early reads what was there before. Streams belong to the thread that creates them.
void set_lazy_streams(bool lazy);

/// When host code that touches device memory dies.
enum class Separation {
  none,                ///< never: at first where LAMINA_CUDA_ON_CPU_OPEN=1 is set
  at_synchronization,  ///< at first: from a wait for the device until its next work, and now and then,
                       ///< as long as that takes less than a tenth of the time
  strict               ///< always; every launch pays for opening and closing all that is allocated
};
void set_separation(Separation separation);

/// A launch with no thread that goes on but by waiting for others fails after this time. 60 at first.
void set_patience(double seconds);

/// A sentence about the last error on this thread.
std::string last_complaint();
/// Forgets this thread's errors, also those that stay on a GPU until its process ends.
void forget_errors();

}  // namespace cuda_on_cpu
