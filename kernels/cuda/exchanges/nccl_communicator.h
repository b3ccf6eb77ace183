// A communicator of NCCL in which no rank hangs. Its functions do not block: this waits for each until NCCL
// has put the work on the stream, and who waits for the stream calls look(). When NCCL fails, a peer has
// abandoned the job or the group's deadline passes, the communicator is aborted, the group abandoned, and
// PeerError thrown.
//
// NCCL's work of two communicators must be in the same order on all ranks. It is, because a rank puts its
// exchanges on the one stream of its Device, in the order of the program; on a second stream (side_sums.h)
// where there is one communicator, or in turns.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "kernels/cuda/libraries/nccl.h"
#include "runtime/communicator.h"

namespace lamina::cuda {

/// For people.
struct NcclOperation {
  const char* name = "begin";
  std::size_t count = 0;  ///< of floats
};

class NcclCommunicator {
 public:
  /// Of the GPU that is this thread's. `group` outlives it. Collective.
  explicit NcclCommunicator(Communicator& group);
  /// Ends it together with the other ranks, whose work on their streams must be done; while the rank unwinds,
  /// alone.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /// False once it has failed.
  bool is_alive() const { return communicator_ != nullptr; }

  /// call(communicator) -> ncclResult_t puts `operation` on a stream. Collective.
  template <class Call>
  void run(const NcclOperation& operation, const Call& call) {
    latest_ = operation;
    require_alive();
    settle(call(communicator_));
  }

  /// For who waits for the work on the stream: PeerError where it will not end.
  void look(std::chrono::nanoseconds waited);

 private:
  void begin();
  void end();
  void settle(ncclResult_t code);
  ncclResult_t state() const;
  void require_alive() const;
  void require_peers(std::chrono::nanoseconds waited);
  void abort();
  [[noreturn]] void fail(const std::string& sentence, bool speaks_first);
  [[noreturn]] void fail_with(ncclResult_t code);
  [[noreturn]] void fail_late();
  std::string place() const;

  Communicator& group_;
  ncclComm_t communicator_ = nullptr;
  NcclOperation latest_;
  std::string failure_;
};

}  // namespace lamina::cuda
