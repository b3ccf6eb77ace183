// What tests set and ask of a stand-in for NCCL whose ranks are threads of one process with GPUs of
// tests/support/cuda_on_cpu.
//
// It does not block, as NCCL does not when asked so: a communicator is in progress until all ranks have made
// the same call; the last to come moves everyone's values. In the capture of a graph the exchange becomes a
// node, which does wait for the other ranks when the graph runs. It is wrong where NCCL would be: a rank that
// calls before its last call has ended, two ranks with one GPU, calls that do not match, use after the end,
// exchanges of two communicators on two streams whose order nothing fixes.
#pragma once

#include <nccl.h>

namespace nccl_on_cpu {

/// Everything below as at the start of the program.
void reset();

/// Whether the library can be loaded. Yes at first.
void set_present(bool present);
bool is_present();
/// As ncclGetVersion tells it; NCCL_VERSION_CODE at first.
void set_version(int version);
/// Whether two ranks may have one GPU, as with NCCL_MULTI_RANK_GPU_ENABLE=1. Not at first.
void set_shared_gpu(bool allowed);
/// What communicators say from now on when asked how they are; ncclSuccess at first: the truth.
void set_error(ncclResult_t error);
/// Whether GPUs reach each other's memory, so that windows can be opened; at first they do.
void set_peer_access(bool reach);
/// Whether ncclCommAbort never returns, until this is called again.
void set_abort_hangs(bool hangs);

/// Communicators that have begun and not been destroyed or aborted; those that were aborted.
int communicators();
int aborted();
/// Windows that ranks have opened and not closed.
int windows();

}  // namespace nccl_on_cpu
