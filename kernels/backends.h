// The devices that can train, each behind runtime/backend.h.
#pragma once

#include <memory>
#include <string>

#include "runtime/backend.h"

namespace lamina {

/// Computes on this machine's cores, on `threads` >= 1 threads. The results do not depend on `threads`.
std::unique_ptr<Backend> make_cpu_backend(int threads);

/// Computes on an NVIDIA GPU, for the rank `local_rank` of those on this host: they share its GPUs in turn.
/// Throws UserError where this build or this machine has none.
std::unique_ptr<Backend> make_cuda_backend(int local_rank);

/// Model of the CPU, the SIMD instruction set in use, how bf16 is multiplied and the version of oneDNN: for
/// people.
std::string cpu_description();
/// Whether this CPU multiplies bf16 by an instruction for it. Where it has none, or a slow one, it makes them
/// f32 first.
bool cpu_multiplies_bf16();
/// The version of CUDA that this build was made with and the GPUs found, the version of NCCL that was found;
/// or why there is none: for people.
std::string cuda_description();
std::string nccl_description();

}  // namespace lamina
